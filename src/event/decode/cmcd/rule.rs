//! Names of the rules that a CMCD key can break, as they are stored in `key_faults`.
//!
//! Stands beside `keys`: the readers of values name a rule from here and nothing else, so that a
//! conformance report counts the same thing in every release.
//!
//! Invariant: a name never changes its meaning; a new meaning takes a new name.

/// `KeyFault::key` of a key that is none of the standard's.
pub const CUSTOM: &str = "custom";

/// The value cannot be read at all (an open quote, an open list, characters of no type); ignored.
pub const MALFORMED: &str = "malformed";
/// The name cannot be a key; the pair is ignored.
pub const MALFORMED_KEY: &str = "malformed_key";
/// A value of another type than the key's; ignored.
pub const WRONG_TYPE: &str = "wrong_type";
/// A decimal where an integer is due; ignored, save for `ltc`, which is rounded.
pub const NOT_AN_INTEGER: &str = "not_an_integer";
/// Below zero where nothing below zero has a meaning; ignored.
pub const NEGATIVE: &str = "negative";
/// Above 2^53; ignored.
pub const TOO_LARGE: &str = "too_large";
/// Outside what the key can mean (a status of four digits); ignored.
pub const OUT_OF_RANGE: &str = "out_of_range";
/// A text above the key's limit; cut.
pub const TOO_LONG: &str = "too_long";
/// More members than a list can honestly have; the rest is ignored.
pub const TOO_MANY: &str = "too_many";
/// A token that the key does not have; ignored.
pub const UNKNOWN_TOKEN: &str = "unknown_token";
/// A list member tagged with no object type; kept as untagged.
pub const UNKNOWN_TAG: &str = "unknown_tag";
/// A key without a hyphen that the standard does not have; ignored.
pub const UNKNOWN_KEY: &str = "unknown_key";
/// A key of a draft of version 2 (`cdn`, `df`); kept.
pub const DRAFT_KEY: &str = "draft_key";
/// The key came before in the same record; the last good value is kept.
pub const DUPLICATE_KEY: &str = "duplicate_key";
/// A custom key whose value is neither a String nor a Token (version 2); kept.
pub const CUSTOM_KEY_TYPE: &str = "custom_key_type";
/// A scalar where version 2 has a list; kept.
pub const LIST_EXPECTED: &str = "list_expected";
/// A list where version 1 has a scalar; kept.
pub const SCALAR_EXPECTED: &str = "scalar_expected";
/// `=true` or `=false` instead of the bare key, `?1` or `?0`; kept.
pub const BOOLEAN_LITERAL: &str = "boolean_literal";
/// A String without its quotes; kept.
pub const UNQUOTED_STRING: &str = "unquoted_string";
/// A Token in quotes; kept.
pub const QUOTED_TOKEN: &str = "quoted_token";
/// A key, or a token, that this version of the standard does not have; kept.
pub const NOT_IN_VERSION: &str = "not_in_version";
/// A key that this kind of record must not carry; ignored.
pub const NOT_ALLOWED_HERE: &str = "not_allowed_here";
/// A key in another header than its own; kept.
pub const WRONG_HEADER: &str = "wrong_header";
/// A key that this kind of record needs and has not, or not in a readable form.
pub const MISSING: &str = "missing";
/// `v` above 2: the whole set is ignored.
pub const UNSUPPORTED_VERSION: &str = "unsupported_version";
/// The pair at the cut of a log column that keeps 800 bytes of headers; ignored.
pub const CUT_BY_LOGGER: &str = "cut_by_logger";
/// Not base64; kept as sent.
pub const NOT_BASE64: &str = "not_base64";
/// Live latency of a player that is not playing (2.6); ignored.
pub const NOT_PLAYING: &str = "not_playing";
