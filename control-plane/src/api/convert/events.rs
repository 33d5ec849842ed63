//! Events and their filters.

use std::sync::Arc;

use proxyplane_proto::v1::{self, watch_events_response::Item};
use proxyplane_spec::{EventId, Violation};
use time::OffsetDateTime;

use super::{Fields, optional_id, page, time, timestamp, traffic::Owner, traffic::owner};
use crate::{
    api::status::Refusal,
    events::{Kind, Severity, Watched},
    store::{
        events::{EventFilter, EventRow},
        page::Page,
    },
};

/// Which events, since when, and which page of them.
pub(in crate::api) fn list(
    request: v1::ListEventsRequest,
) -> Result<(EventFilter, Option<OffsetDateTime>, Page), Refusal> {
    let mut fields = Fields::default();
    let filter = filter(&request.filter.unwrap_or_default(), &mut fields);
    let since = fields.take(request.since.map(|at| time("since", at)).transpose());
    let page = fields.take(page(request.page_size, &request.page_token));
    let all = filter
        .zip(since)
        .zip(page)
        .map(|((filter, since), page)| (filter, since, page));
    fields.finish(all)
}

/// Which events are to be watched, and from where on.
pub(in crate::api) fn watch(request: v1::WatchEventsRequest) -> Result<(EventFilter, Option<EventId>), Refusal> {
    let mut fields = Fields::default();
    let filter = filter(&request.filter.unwrap_or_default(), &mut fields);
    let after = fields.take(optional_id("after_id", &request.after_id));
    fields.finish(filter.zip(after))
}

fn filter(filter: &v1::EventFilter, fields: &mut Fields) -> Option<EventFilter> {
    let severity = fields.take(severity(filter.severity_min));
    let kinds: Vec<Option<Kind>> = filter
        .kinds
        .iter()
        .enumerate()
        .map(|(index, code)| fields.take(kind(index, code)))
        .collect();
    let Owner {
        service_id,
        workspace_id,
    } = owner("filter.", &filter.proxy_id, &filter.workspace_id, fields)?;
    Some(EventFilter {
        severity_min: severity?,
        kinds: kinds.into_iter().collect::<Option<_>>()?,
        service_id,
        workspace_id,
    })
}

/// The least severity; unspecified means any.
fn severity(number: i32) -> Result<Severity, Violation> {
    if number == v1::EventSeverity::Unspecified as i32 {
        return Ok(Severity::Info);
    }
    let known = i16::try_from(number).ok().and_then(Severity::of);
    known.ok_or_else(|| Violation::new("filter.severity_min", "must be INFO, WARNING or ERROR"))
}

fn kind(index: usize, code: &str) -> Result<Kind, Violation> {
    Kind::by_code(code).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        Violation::new(
            format!("filter.kinds[{index}]"),
            format!("must be one of {}", known.join(", ")),
        )
    })
}

/// An event.
pub(in crate::api) fn event(row: EventRow) -> v1::Event {
    let subject = v1::EventSubject {
        r#type: row.subject_type.number().into(),
        id: row.subject_id.map(|id| id.to_string()).unwrap_or_default(),
        name: row.subject_name,
    };
    v1::Event {
        id: row.id.to_string(),
        time: Some(timestamp(row.at)),
        severity: row.severity.number().into(),
        source: row.source,
        kind: row.kind,
        subject: Some(subject),
        workspace_id: row.workspace_id.map(|id| id.to_string()).unwrap_or_default(),
        message: row.message,
        details: row.details.into_iter().collect(),
        occurrences: row.occurrences,
    }
}

/// What a watcher is told.
pub(in crate::api) fn watched(watched: Watched) -> v1::WatchEventsResponse {
    let item = match watched {
        Watched::From(id) => Item::SubscribedAfterId(id.to_string()),
        Watched::Event(row) => Item::Event(event(Arc::unwrap_or_clone(row))),
    };
    v1::WatchEventsResponse { item: Some(item) }
}
