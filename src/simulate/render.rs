//! A moment as the line that a player or a CDN writes.
//!
//! Invariant: members and columns stand in the order in which the reference player and CloudFront
//! write them, because tolerant readers are best tested with the real thing.

use std::io::Write;

use chrono::{DateTime, Datelike, Timelike};

use super::plan::{Cache, Metric, Plan, PlayerEvent, Request};
use super::random::Random;
use super::world::{RUNGS, Title};

/// The two lines that open every CloudFront log file.
pub const CDN_HEADER: &str = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end\n";

const HOST: &str = "d111111abcdef8.cloudfront.net";

/// Writes to memory, which cannot fail.
macro_rules! put {
    ($text:expr, $($arg:tt)*) => {
        write!($text, $($arg)*).expect("memory takes every byte")
    };
}

/// Appends one event of the reference dialect, newline included.
pub fn player_line(text: &mut Vec<u8>, plan: &Plan, time_ms: i64, event: &PlayerEvent) {
    let mut line = PlayerLine { text, plan };
    line.metric(&event.metric);
    let viewer = &plan.viewer;
    if event.names_user {
        put!(text, ",\"user_id\":\"{}\"", viewer.user_id);
    }
    put!(text, ",\"video_id\":\"{}\"", plan.title.video_id);
    if let Some(playlist_type) = event.playlist_type {
        put!(text, ",\"playlist_type\":\"{playlist_type}\"");
    }
    put!(
        text,
        ",\"app_name\":\"{}\",\"app_version\":\"{}\",\"device_type\":\"{}\",\"client_ip\":\"{}\",\"country\":\"{}\",\"isp\":\"{}\",\"cdn\":\"cloudfront\",\"TimeStamp\":{time_ms}}}\n",
        viewer.device.app_name,
        viewer.app_version,
        viewer.device.device_type,
        viewer.client_ip,
        viewer.isp.country,
        viewer.isp.name,
    );
}

struct PlayerLine<'a> {
    text: &'a mut Vec<u8>,
    plan: &'a Plan,
}

impl PlayerLine<'_> {
    fn metric(&mut self, metric: &Metric) {
        match *metric {
            Metric::Play { at, knows_duration } => {
                self.open("PLAY");
                self.seconds("at", at);
                match knows_duration {
                    true => self.duration(),
                    false => put!(self.text, ",\"duration\":0"),
                }
            }
            Metric::FirstFrame {
                rtt,
                rung,
                startup_ms,
                request,
            } => {
                self.open("FIRSTFRAME");
                self.network(rtt);
                self.picture(rung);
                // The player passes the manifest's text on as it found it.
                if self.plan.title.fps.is_some() {
                    put!(self.text, ",\"avg_bitrate\":\"{}\"", RUNGS[rung].bitrate_bps);
                }
                put!(self.text, ",\"time_millisecond\":{startup_ms}");
                self.tracking_id(request);
            }
            Metric::Buffer {
                first,
                at,
                rtt,
                length_ms,
                request,
            } => {
                self.open("BUFFER");
                let buffer_type = match first {
                    true => "FirstBuffer",
                    false => "ScreenFreezedBuffer",
                };
                put!(self.text, ",\"buffer_type\":\"{buffer_type}\"");
                self.seconds("at", at);
                self.network(rtt);
                put!(self.text, ",\"time_millisecond\":{length_ms}");
                self.tracking_id(request);
            }
            Metric::Stream {
                at,
                rtt,
                rung,
                start_rung,
                request,
            } => {
                self.open("STREAM");
                self.seconds("at", at);
                self.network(rtt);
                self.picture(start_rung);
                self.average_bitrate(rung);
                self.duration();
                self.tracking_id(request);
            }
            Metric::Step { at, from, to, start_rung } => {
                self.open("STEP");
                self.seconds("at", at);
                let direction = match to > from {
                    true => "UP",
                    false => "DOWN",
                };
                put!(
                    self.text,
                    ",\"bitrate_from\":{},\"bitrate_to\":{},\"direction\":\"{direction}\"",
                    RUNGS[from].bitrate_bps,
                    RUNGS[to].bitrate_bps,
                );
                self.picture(start_rung);
                self.connection_type();
            }
            Metric::Seek {
                from,
                to,
                rtt,
                length_ms,
                request,
            } => {
                self.open("SEEK");
                self.seconds("seek_from", from);
                self.seconds("seek_to", to);
                self.network(rtt);
                put!(self.text, ",\"time_millisecond\":{length_ms}");
                self.tracking_id(request);
            }
            Metric::Pause { at } => {
                self.open("PAUSE");
                self.seconds("at", at);
                self.duration();
            }
            Metric::Stop { at, rung, start_rung } => {
                self.open("STOP");
                self.seconds("at", at);
                self.duration();
                self.connection_type();
                self.picture(start_rung);
                self.average_bitrate(rung);
            }
            Metric::Error { at, request } => {
                self.open("ERROR");
                self.seconds("at", at);
                put!(self.text, ",\"message\":\"Error\"");
                if let Some(request) = request {
                    self.tracking_id(request);
                }
            }
        }
    }

    fn open(&mut self, metric_type: &str) {
        put!(self.text, "{{\"MetricType\":\"{metric_type}\"");
    }

    /// As JavaScript writes numbers: no trailing zeros, no point without digits behind it.
    fn seconds(&mut self, name: &str, cs: u32) {
        let (whole, rest) = (cs / 100, cs % 100);
        match (rest, rest % 10) {
            (0, _) => put!(self.text, ",\"{name}\":{whole}"),
            (_, 0) => put!(self.text, ",\"{name}\":{whole}.{}", rest / 10),
            _ => put!(self.text, ",\"{name}\":{whole}.{rest:02}"),
        }
    }

    /// A live title's length is infinite, which JSON turns into null.
    fn duration(&mut self) {
        match self.plan.title.duration_cs {
            Some(cs) => self.seconds("duration", cs),
            None => put!(self.text, ",\"duration\":null"),
        }
    }

    fn network(&mut self, rtt: u32) {
        put!(self.text, ",\"rtt\":{rtt}");
        self.connection_type();
    }

    fn connection_type(&mut self) {
        let connection_type = self.plan.viewer.connection_type;
        put!(self.text, ",\"connection_type\":\"{connection_type}\"");
    }

    /// The resolution is the first one for ever: the player never updates it.
    fn picture(&mut self, start_rung: usize) {
        let resolution = RUNGS[start_rung].resolution;
        put!(self.text, ",\"package\":\"HLS\",\"resolution\":\"{resolution}\"");
        if let Some(fps) = self.plan.title.fps {
            put!(self.text, ",\"fps\":\"{fps}\"");
        }
    }

    fn average_bitrate(&mut self, rung: usize) {
        let is_known = self.plan.title.fps.is_some();
        let bitrate = if is_known { RUNGS[rung].bitrate_bps } else { 0 };
        put!(self.text, ",\"avg_bitrate\":{bitrate}");
    }

    fn tracking_id(&mut self, request: u32) {
        self.text.extend_from_slice(b",\"cdn_tracking_id\":\"");
        request_id(self.text, self.plan, request);
        self.text.push(b'"');
    }
}

/// Appends one line of a CloudFront standard log, newline included.
pub fn cdn_line(text: &mut Vec<u8>, plan: &Plan, time_ms: i64, request: &Request) {
    let viewer = &plan.viewer;
    log_time(text, time_ms);
    put!(
        text,
        "\t{}\t{}\t{}\tGET\t{HOST}\t",
        viewer.edge_location,
        request.bytes,
        viewer.client_ip,
    );
    uri_stem(text, plan.title, request);
    let result = result_type(request.result);
    put!(
        text,
        "\t{:03}\thttps://player.example.com/watch\t{}\t-\t-\t{result}\t",
        request.status,
        viewer.device.user_agent,
    );
    request_id(text, plan, request.number);
    put!(text, "\t{HOST}\thttps\t118\t");
    seconds_from_ms(text, request.taken_ms);
    put!(
        text,
        "\t-\tTLSv1.3\tTLS_AES_128_GCM_SHA256\t{result}\tHTTP/2.0\t-\t-\t{}\t",
        client_port(plan),
    );
    seconds_from_ms(text, request.ttfb_ms);
    put!(text, "\t{}\t", detailed_result_type(request));
    match request.status {
        200 => put!(text, "video/mp2t\t{}\t-\t-\n", request.bytes - HEADER_BYTES),
        0 => put!(text, "-\t-\t-\t-\n"),
        _ => put!(text, "text/html\t-\t-\t-\n"),
    }
}

/// `sc-bytes` counts the response's header too.
const HEADER_BYTES: u32 = 540;

fn log_time(text: &mut Vec<u8>, time_ms: i64) {
    let time = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    put!(
        text,
        "{:04}-{:02}-{:02}\t{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
    );
}

fn uri_stem(text: &mut Vec<u8>, title: &Title, request: &Request) {
    put!(
        text,
        "/hls/{}/{}p_{:05}.ts",
        title.video_id,
        RUNGS[request.rung].height,
        request.segment,
    );
}

fn seconds_from_ms(text: &mut Vec<u8>, ms: u32) {
    put!(text, "{}.{:03}", ms / 1_000, ms % 1_000);
}

fn result_type(result: Cache) -> &'static str {
    match result {
        Cache::Hit => "Hit",
        Cache::RefreshHit => "RefreshHit",
        Cache::Miss => "Miss",
        Cache::Error => "Error",
    }
}

fn detailed_result_type(request: &Request) -> &'static str {
    match request.status {
        0 => "ClientCommError",
        _ => result_type(request.result),
    }
}

fn client_port(plan: &Plan) -> u64 {
    const FIRST_EPHEMERAL: u64 = 49_152;
    FIRST_EPHEMERAL + plan.request_ids % (65_536 - FIRST_EPHEMERAL)
}

/// CloudFront's form: 40 bytes in 56 characters of URL-safe base64.
fn request_id(text: &mut Vec<u8>, plan: &Plan, number: u32) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    /// 40 bytes fill 53 characters and two bits of the 54th.
    const FULL_CHARACTERS: usize = 53;
    /// A number of 64 bits gives ten characters of six.
    const CHARACTERS_A_NUMBER: usize = 10;
    let mut random = Random::of(plan.request_ids, 0, u64::from(number));
    let mut bits = 0;
    for index in 0..FULL_CHARACTERS {
        if index % CHARACTERS_A_NUMBER == 0 {
            bits = random.next();
        }
        text.push(ALPHABET[(bits & 0x3f) as usize]);
        bits >>= 6;
    }
    text.push(b"AQgw"[(bits & 3) as usize]);
    text.extend_from_slice(b"==");
}
