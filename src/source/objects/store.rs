//! Object stores by their URL: S3 and what speaks like it, local folders, memory.
//!
//! Serves the objects source. Names objects as the lake knows them and lists them by the start of
//! their keys.
//!
//! Invariant: plain HTTP is spoken with this machine only; everything else goes through TLS.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, RetryConfig};
use url::{Host, Url};

/// Longest wait for an answer. Requests are for a few MiB, so one that takes longer hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries inside the client; what is still broken then is retried above, with longer waits.
const CLIENT_RETRIES: usize = 2;

/// A store that cannot be used as it is set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {advice}")]
pub struct StoreError {
    pub what: String,
    pub advice: String,
}

/// Where a store stands and how it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorePlace {
    /// `s3://bucket/folder`, `file:///folder` or `memory:///`.
    pub url: String,
    pub region: Option<String>,
    /// Another S3 than Amazon's, spoken to in path style.
    pub endpoint_url: Option<String>,
}

/// A store with the names of its objects.
#[derive(Clone)]
pub struct Bucket {
    pub store: Arc<dyn ObjectStore>,
    /// Lists by the start of keys, where the store can; the others list a folder and are filtered.
    pages: Option<Arc<dyn PaginatedListStore>>,
    /// What stands before a key in the name of a partition: `s3://bucket/`.
    origin: String,
    /// The folder that the URL names; empty or with a slash at its end.
    folder: String,
}

impl Bucket {
    /// Opens a store; S3 takes its credentials from the environment.
    ///
    /// # Errors
    /// A URL that names no known store, or settings that the store refuses.
    pub fn open(place: &StorePlace) -> Result<Bucket, StoreError> {
        let url = Url::parse(&place.url).map_err(|error| StoreError {
            what: format!("`{}` is no URL: {error}", place.url),
            advice: "write it as s3://bucket/folder or file:///folder".to_string(),
        })?;
        match url.scheme() {
            "s3" | "s3a" => open_s3(place, &url),
            "file" => open_folder(&url),
            "memory" => Ok(Bucket::over(Arc::new(InMemory::new()), "memory:///", url.path())),
            other => Err(StoreError {
                what: format!("objects cannot be read from `{other}`"),
                advice: "s3, file and memory are known".to_string(),
            }),
        }
    }

    /// A store that was opened elsewhere.
    pub fn over(store: Arc<dyn ObjectStore>, origin: &str, folder: &str) -> Bucket {
        let folder = folder.trim_matches('/');
        Bucket {
            store,
            pages: None,
            origin: origin.to_string(),
            folder: if folder.is_empty() { String::new() } else { format!("{folder}/") },
        }
    }

    /// The bucket's name, for comparing with what an event says.
    pub fn bucket_name(&self) -> &str {
        self.origin.strip_prefix("s3://").unwrap_or("").trim_end_matches('/')
    }

    /// The start of the keys that a prefix below the URL stands for.
    pub fn key_prefix(&self, prefix: &str) -> String {
        format!("{}{}", self.folder, prefix.trim_start_matches('/'))
    }

    /// `s3://bucket/key#etag`: unique in the world, and another one once the object was replaced.
    pub fn partition(&self, key: &str, version: &str) -> Arc<str> {
        format!("{}{key}#{version}", self.origin).into()
    }

    /// A key with its bucket, for a person.
    pub fn name_of(&self, path: &Path) -> String {
        format!("{}{path}", self.origin)
    }

    /// Objects whose keys begin with `prefix`, in no order.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match &self.pages {
            Some(pages) => list_pages(Arc::clone(pages), prefix.to_string()),
            None => {
                let prefix = prefix.to_string();
                let folder = prefix.rsplit_once('/').map(|(folder, _)| Path::from(folder));
                let listed = self.store.list(folder.as_ref());
                let matches = move |found: &object_store::Result<ObjectMeta>| match found {
                    Ok(meta) => meta.location.as_ref().starts_with(&prefix),
                    Err(_) => true,
                };
                listed.filter(move |found| std::future::ready(matches(found))).boxed()
            }
        }
    }
}

/// What tells one content of a key from the next: the entity tag without its quotes, or, where a store
/// has none, time and size.
pub fn version_of(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) => bare_tag(tag).to_string(),
        None => format!("{}-{}", meta.last_modified.timestamp_millis(), meta.size),
    }
}

/// Events give an entity tag without the quotes that HTTP puts around it.
pub fn bare_tag(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

type Pages = (Arc<dyn PaginatedListStore>, String, Option<Option<String>>);

fn list_pages(pages: Arc<dyn PaginatedListStore>, prefix: String) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let first: Pages = (pages, prefix, Some(None));
    let listed = futures_util::stream::unfold(first, |(pages, prefix, next)| async move {
        let options = PaginatedListOptions {
            page_token: next?,
            ..PaginatedListOptions::default()
        };
        let wanted = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let (found, next) = match pages.list_paginated(wanted, options).await {
            Ok(page) => (page.result.objects.into_iter().map(Ok).collect(), page.page_token.map(Some)),
            Err(error) => (vec![Err(error)], None),
        };
        Some((futures_util::stream::iter(found), (pages, prefix, next)))
    });
    listed.flatten().boxed()
}

fn open_s3(place: &StorePlace, url: &Url) -> Result<Bucket, StoreError> {
    let bucket = url.host_str().unwrap_or_default();
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(false);
    let retry = RetryConfig {
        max_retries: CLIENT_RETRIES,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_bucket_name(bucket)
        .with_retry(retry);
    if let Some(region) = &place.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &place.endpoint_url {
        builder = builder
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(false)
            .with_allow_http(is_this_machine(endpoint));
    }
    let store = builder.build().map_err(|error| StoreError {
        what: format!("the bucket `{bucket}` cannot be opened: {error}"),
        advice: "check `url`, `region` and the credentials in the environment".to_string(),
    })?;
    let store = Arc::new(store);
    Ok(Bucket {
        pages: Some(Arc::clone(&store) as Arc<dyn PaginatedListStore>),
        ..Bucket::over(store, &format!("s3://{bucket}/"), &percent_decoded(url.path()))
    })
}

fn open_folder(url: &Url) -> Result<Bucket, StoreError> {
    let unusable = |why: String| StoreError {
        what: format!("the folder of `{url}` cannot be opened: {why}"),
        advice: "write it as file:///folder and create it".to_string(),
    };
    let folder = url
        .to_file_path()
        .map_err(|()| unusable("it is no path of this machine".to_string()))?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| unusable(error.to_string()))?;
    let origin = format!("file://{}/", folder.display().to_string().trim_end_matches('/'));
    Ok(Bucket::over(Arc::new(store), &origin, ""))
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// True for a plain HTTP endpoint on this machine.
pub fn is_this_machine(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, PutPayload};

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:5000", true),
            ("http://localhost:5000", true),
            ("http://[::1]:5000", true),
            ("http://10.0.0.1:5000", false),
            ("http://localhost.example.com", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_this_machine(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn an_unusable_place_says_what_to_write() {
        for (url, part) in [
            ("bucket/x", "is no URL"),
            ("ftp://x/y", "`ftp`"),
            ("file:///no/such/folder", "cannot be opened"),
        ] {
            let place = StorePlace {
                url: url.to_string(),
                ..StorePlace::default()
            };
            let error = Bucket::open(&place).err().expect("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_hold_bucket_key_and_version() {
        let place = StorePlace {
            url: "s3://logs/cdn/".to_string(),
            region: Some("eu-west-1".to_string()),
            endpoint_url: Some("http://127.0.0.1:1".to_string()),
        };
        let bucket = Bucket::open(&place).expect("usable");
        assert_eq!(bucket.bucket_name(), "logs");
        assert_eq!(bucket.key_prefix("/E1."), "cdn/E1.");
        assert_eq!(&*bucket.partition("cdn/E1.gz", bare_tag("\"abc-2\"")), "s3://logs/cdn/E1.gz#abc-2");
    }

    #[tokio::test]
    async fn a_prefix_may_end_within_a_name() {
        let store = Arc::new(InMemory::new());
        for key in ["a/E1.x", "a/E1.y", "a/E2.x", "b/E1.x"] {
            store.put(&Path::from(key), PutPayload::from_static(b"x")).await.expect("in memory");
        }
        let bucket = Bucket::over(store, "memory:///", "");
        for (prefix, expected) in [("a/E1.", 2), ("a/", 3), ("", 4), ("c/", 0)] {
            assert_eq!(bucket.list(prefix).collect::<Vec<_>>().await.len(), expected, "{prefix}");
        }
    }
}
