//! JSON Schemas of the protocol's files, for scorers in other languages.

use crate::{Job, JobResult, Progress, Reference, ReferenceLikelihood, Reply, Sample};
use schemars::{JsonSchema, schema_for};

/// File name and text of each schema, as checked in under `schemas/`.
#[must_use]
pub fn schemas() -> Vec<(&'static str, String)> {
    vec![
        ("job.json", text::<Job>()),
        ("sample.json", text::<Sample>()),
        ("reference.json", text::<Reference>()),
        ("progress.json", text::<Progress>()),
        ("reply.json", text::<Reply>()),
        ("likelihood.json", text::<ReferenceLikelihood>()),
        ("result.json", text::<JobResult>()),
    ]
}

fn text<T: JsonSchema>() -> String {
    // Sorted here, because the map's own order depends on serde_json's features in this build.
    let mut schema = schema_for!(T).to_value();
    schema.sort_all_objects();
    format!("{schema:#}\n")
}
