//! The layout of records that do not name their fields themselves.
//!
//! Stands beside `decode`: a header line, the settings or bronze give a layout as one line of text, and
//! bronze keeps that line beside every record that was read by it.
//!
//! Invariant: the text of a layout gives the same layout.

use super::Format;
use super::cdn::cloudfront::{real_time, standard};
use super::cdn::field_map::FieldMap;
use crate::event::Reject;

/// What a record needs to be read and does not hold itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    Absent,
    /// The `#Fields` list in force.
    W3c(standard::Layout),
    /// The field list of the settings.
    RealTime(real_time::FieldList),
    /// The field map of the settings.
    Mapped(FieldMap),
}

impl Layout {
    /// The layout that the text is for a format; `Absent` for one that needs none.
    ///
    /// Rejects `MissingFields`.
    pub(super) fn of(format: Format, fields: &str) -> Result<Layout, Reject> {
        Ok(match format {
            Format::CloudFrontV1 => standard::Layout::new(fields)?.map_or(Layout::Absent, Layout::W3c),
            Format::CloudFrontRealTime => Layout::RealTime(real_time::FieldList::new(fields)?),
            Format::GenericJson | Format::GenericCsv => Layout::Mapped(FieldMap::new(fields)?),
            _ => Layout::Absent,
        })
    }

    /// The layout on one line, as `of` takes it.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Layout::Absent => None,
            Layout::W3c(layout) => Some(layout.fields()),
            Layout::RealTime(list) => Some(list.text()),
            Layout::Mapped(map) => Some(map.as_text()),
        }
    }
}

/// True for a CSV whose columns are named by the first line of each file, and so by nothing else.
pub fn names_columns(format: Option<Format>, fields: Option<&str>) -> bool {
    let layout = format.zip(fields).and_then(|(format, fields)| Layout::of(format, fields).ok());
    matches!(layout, Some(Layout::Mapped(map)) if map.needs_header())
}

/// Whether a field list of the settings can be used for a format; says nothing of the other formats.
///
/// Errors: `MissingFields`, and what to change.
pub fn check_fields(format: Format, fields: &str) -> Result<(), Reject> {
    Layout::of(format, fields).map(|_| ())
}
