//! The records of M1 to M15 as the players would have sent them.
//!
//! Each line of a script is a time in seconds from `T0_MS` and what happened then.

use serde_json::json;

/// 2026-04-14T07:00:00Z, a whole hour. The times of CTA-5004-B 8.2.5 end in 150889 and 150112, so
/// they are 150.889 s and 150.112 s from here.
const T0_MS: i64 = 1_776_150_000_000;
const HOUR_MS: i64 = 3_600_000;
/// What "23 h late" is measured against: by then every other session is closed.
const BEACON_MS: i64 = T0_MS + 23 * HOUR_MS;

/// Where the records of a dialect go: a file is of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    Cmcd,
    Epas,
    Reference,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub dialect: Dialect,
    pub at_ms: i64,
    pub line: String,
}

/// The records of one session, ascending by time.
pub type Session = Vec<Record>;

/// Milliseconds of `0`, `2.5` or `150.889` seconds.
fn ms(seconds: &str) -> i64 {
    (seconds.parse::<f64>().expect("a number of seconds") * 1_000.0).round() as i64
}

/// `seconds rest`, one record a line.
fn script(text: &str) -> impl Iterator<Item = (i64, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| {
        let (at, rest) = line.split_once(' ').expect("seconds and what happened");
        (ms(at), rest)
    })
}

/// CMCD version 2, event mode. A line that begins with `sta` is a change of the play state.
pub fn cmcd(session: &str, content: &str, text: &str) -> Session {
    let record = |(at_ms, pairs): (i64, &str)| {
        let event = if pairs.starts_with("sta=") { "e=ps," } else { "" };
        let ts = T0_MS + at_ms;
        Record {
            dialect: Dialect::Cmcd,
            at_ms,
            line: format!("{event}{pairs},ts={ts},sid=\"{session}\",cid=\"{content}\",v=2"),
        }
    };
    script(text).map(record).collect()
}

/// EPAS of an asset of 60 s; each line is `seconds event playhead`, the playhead in seconds.
fn epas(session: &str, text: &str) -> Session {
    let record = |(at_ms, rest): (i64, &str)| {
        let (event, playhead) = rest.split_once(' ').expect("an event and a playhead");
        let mut payload = json!({"contentId": session, "live": false});
        if event == "stopped" {
            payload["reason"] = json!("ended");
        }
        let line = json!({"event": event, "sessionId": session, "timestamp": T0_MS + at_ms,
                          "playhead": ms(playhead), "duration": 60_000, "payload": payload});
        Record {
            dialect: Dialect::Epas,
            at_ms,
            line: line.to_string(),
        }
    };
    script(text).map(record).collect()
}

/// The AWS player; each line is `seconds MetricType at`.
fn aws(content: &str, text: &str) -> Session {
    let record = |(at_ms, rest): (i64, &str)| {
        let (metric, at) = rest.split_once(' ').expect("a metric type and a position");
        let line = json!({"MetricType": metric, "at": at.parse::<f64>().expect("a position"), "duration": 596.48,
                          "user_id": "us-west-2:m13", "video_id": content, "playlist_type": "VOD",
                          "time_millisecond": 640, "TimeStamp": T0_MS + at_ms});
        Record {
            dialect: Dialect::Reference,
            at_ms,
            line: line.to_string(),
        }
    };
    script(text).map(record).collect()
}

const M1: &str = "0 loading 0
    2 playing 0
    20 buffering 18
    30 buffered 18
    40 paused 28
    70 playing 28
    102 stopped 60";

const M3: &str = "0 sta=s
    1 sta=p
    30 sta=k
    31.2 sta=r
    33 sta=p";

/// Every session of M1 to M15.
pub fn sessions() -> Vec<Session> {
    let one = |name: &str, text: &str| cmcd(name, name, text);
    vec![
        epas("m1", M1),
        one("m2", "0 sta=s\n2 sta=p\n55 sta=r\n65 sta=p\n120 sta=q"),
        one("m3", &format!("{M3}\n60 e=t,sta=p")),
        one("m3-after", &format!("{M3}\n33.5 sta=r\n34 sta=p\n60 e=t,sta=p")),
        one("m4", "0 sta=s\n3.2 sta=q"),
        one("m4-early", "0 sta=s\n0.6 sta=q"),
        one("m5", "0 sta=s\n4 e=e,ec=(\"27\"),sta=f"),
        one("m5-recovered", "0 sta=s\n4 e=e,ec=(\"27\"),sta=f\n6 sta=p\n36 e=t,sta=p"),
        one("m6", "0 sta=s\n1 sta=p\n30 e=t,sta=p\n60 e=t,sta=p"),
        one("m7", "0 sta=p\n30 e=t,sta=p\n60 sta=r"),
        // CTA-5004-B 8.2.5: state entered at ...150889, left at ...150112 with a length of 1500.
        one(
            "m8",
            "98 sta=s,sn=0\n100 sta=p,sn=1\n150.889 sta=r,sn=2\n150.112 sta=p,bsd=(1500),bs,sn=3\n180 e=t,sta=p,sn=4",
        ),
        one(
            "m9",
            "0 sta=s\n1 sta=p,pb=(1000)\n11 e=bc,pb=(3000)\n41 sta=a\n61 sta=p,pb=(3000),pr=2\n81 sta=e",
        ),
        one("m10", "0 sta=s\n2 sta=p\n30 sta=p,bsd=(1200)\n90 sta=e,bsa=(3;v),bsda=(4150;v)"),
        cmcd("m11-a", "m11", "0 sta=p\n100 sta=q"),
        cmcd("m11-b", "m11", "50 sta=p\n150 sta=q"),
        cmcd("m11-c", "m11", "90 sta=p\n95 sta=q"),
        one("m12", "0 sta=s\n4 sta=p\n33.5 sta=r\n34 sta=p\n43.5 sta=r\n44 sta=p\n54 sta=e"),
        aws(
            "m13",
            "0 PLAY 0\n0.64 FIRSTFRAME 0\n300 STREAM 299.36\n595.2 PAUSE 594.56\n595.205 STOP 594.56",
        ),
        one(
            "m14",
            "-1 sta=s\n0 sta=p\n100 e=b,bg\n130 e=t,sta=p,bg\n380 e=t,sta=p,bg\n400 e=b,sta=p\n410 sta=q",
        ),
        epas("m15", M1),
    ]
}

/// An attempt that is still starting when all the rest is a day old.
pub fn beacon() -> Record {
    Record {
        dialect: Dialect::Cmcd,
        at_ms: BEACON_MS - T0_MS,
        line: format!("e=ps,sta=s,ts={BEACON_MS},sid=\"beacon\",cid=\"beacon\",v=2"),
    }
}

/// All records, ascending by time.
pub fn in_order() -> Vec<Record> {
    let mut records: Vec<Record> = sessions().into_iter().flatten().chain([beacon()]).collect();
    records.sort_by_key(|record| record.at_ms);
    records
}
