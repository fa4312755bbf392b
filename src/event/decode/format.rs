//! The formats that records may be written in, by the names that settings and bronze have for them.
//!
//! Stands beside `decode`: a source has a format from its settings or from `detect`.
//!
//! Invariant: a name never changes, for bronze keeps it beside the record.

/// How a file's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// The reference player's events, one JSON object a line.
    Reference,
    /// Amazon IVS player events, one JSON object a line.
    Ivs,
    /// Eyevinn player analytics (EPAS), one JSON object a line.
    Epas,
    /// CMCD version 1 or 2, one record a line.
    Cmcd,
    /// A player's report that a CDN's log held, as bronze keeps it.
    CmcdLog,
    /// The HTTP receiver's own spool: records of any dialect, already anonymous.
    Spooled,
    /// CloudFront standard log, version 1, or version 2 as W3C.
    CloudFrontV1,
    /// CloudFront standard log, version 2, as JSON or Parquet.
    CloudFrontV2,
    /// CloudFront real-time log; its field list is a setting.
    CloudFrontRealTime,
    /// Akamai DataStream 2, JSON.
    Akamai,
    /// Fastly, in the log format that we publish (docs/cdn-logs.md).
    Fastly,
    /// Cloudflare Logpush, `http_requests` as NDJSON.
    Cloudflare,
    /// Google Media CDN, entries of Cloud Logging.
    GoogleMediaCdn,
    /// The combined format of nginx and Apache, plain or with our labelled cells.
    Combined,
    /// JSON of any names, read by a field map of the settings.
    GenericJson,
    /// CSV of any columns, read by a field map of the settings.
    GenericCsv,
    /// The reference system's 12-key JSON made of a CDN log.
    CdnJson,
}

/// What a format's records become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Player,
    Cdn,
}

impl Format {
    pub const ALL: [Format; 17] = [
        Format::Reference,
        Format::Ivs,
        Format::Epas,
        Format::Cmcd,
        Format::CmcdLog,
        Format::Spooled,
        Format::CloudFrontV1,
        Format::CloudFrontV2,
        Format::CloudFrontRealTime,
        Format::Akamai,
        Format::Fastly,
        Format::Cloudflare,
        Format::GoogleMediaCdn,
        Format::Combined,
        Format::GenericJson,
        Format::GenericCsv,
        Format::CdnJson,
    ];

    /// The name used in settings and in bronze.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Reference => "reference",
            Format::Ivs => "ivs",
            Format::Epas => "epas",
            Format::Cmcd => "cmcd",
            Format::CmcdLog => "cmcd_log",
            Format::Spooled => "spooled",
            Format::CloudFrontV1 => "cloudfront_v1",
            Format::CloudFrontV2 => "cloudfront_v2",
            Format::CloudFrontRealTime => "cloudfront_realtime",
            Format::Akamai => "akamai_ds2",
            Format::Fastly => "fastly",
            Format::Cloudflare => "cloudflare",
            Format::GoogleMediaCdn => "google_media_cdn",
            Format::Combined => "combined",
            Format::GenericJson => "generic_json",
            Format::GenericCsv => "generic_csv",
            Format::CdnJson => "cdn_json",
        }
    }

    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The records can be read by a layout from the settings.
    pub fn has_layout(self) -> bool {
        self.needs_fields() || self == Format::CloudFrontV1
    }

    /// The records cannot be read without a layout from the settings.
    pub fn needs_fields(self) -> bool {
        matches!(self, Format::CloudFrontRealTime | Format::GenericJson | Format::GenericCsv)
    }

    pub fn table(self) -> Kind {
        match self {
            Format::Reference | Format::Ivs | Format::Epas | Format::Cmcd | Format::CmcdLog | Format::Spooled => Kind::Player,
            _ => Kind::Cdn,
        }
    }
}
