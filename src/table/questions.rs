//! Checks that the providers of questions have the vectors of the documents, before anything is locked.

use embedd_wire::InputType;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::update::{UpdateRequest, wanted};
use super::{check_may_change, choose};
use crate::catalog::{self, QuestionSettings, VectorTable};
use crate::error::{Error, Result};
use crate::fdw::{Server, depend, embed};
use crate::rights::RoleSwitch;
use crate::{client, guc, shared};

/// The text whose vectors are compared, which is no user data.
const TEXT: &str = "a question and its answer";
/// The least cosine similarity of two vectors of it in one vector space. Rounding differs between servers, and models of
/// one family differ a little.
const LEAST_SIMILARITY: f64 = 0.8;

/// What the documents of a vector table are embedded with.
#[derive(Debug, PartialEq, Eq)]
pub struct Vectors {
    pub provider: String,
    pub model: String,
    pub dimensions: i32,
}

/// What has been compared: the vectors of the documents, and the providers of the questions.
#[derive(Debug, PartialEq)]
pub struct Checked {
    vectors: Vectors,
    settings: QuestionSettings,
}

impl Checked {
    /// What has to be compared before one configuration follows another one; None where nothing has.
    fn between(base: &VectorTable, wanted: &VectorTable) -> Option<Checked> {
        let vectors = |of: &VectorTable| Vectors {
            provider: of.provider.clone(),
            model: of.model.clone(),
            dimensions: of.dimensions,
        };
        let settings = |of: &VectorTable| of.stored.question_settings.asking();
        let checked = Checked { vectors: vectors(wanted), settings: settings(wanted) };
        let is_new = vectors(base) != checked.vectors || settings(base) != checked.settings;
        (is_new && checked.settings != QuestionSettings::default()).then_some(checked)
    }
}

/// Checks the change of a vector table by this request; what was compared. No row or table is locked yet, because the
/// providers may take their time.
pub fn check_change(
    client: &mut SpiClient<'_>,
    request: &UpdateRequest,
) -> Result<Option<Checked>> {
    let rights = RoleSwitch::of_extension()?;
    let live = catalog::find(client, &request.name)?;
    let shadow = catalog::shadow_of(client, live.id)?;
    drop(rights);
    check_may_change(&live)?;
    let base = shadow.as_ref().unwrap_or(&live);
    let after = base.stored.question_settings.changed(&request.questions)?;
    if after.asking() == QuestionSettings::default() {
        return Ok(None);
    }
    let (wanted, _) = wanted(client, &live, base, request)?;
    let Some(checked) = Checked::between(base, &wanted) else { return Ok(None) };
    let _rights = RoleSwitch::of_owner(live.owner);
    check(&checked.vectors, &checked.settings)?;
    Ok(Some(checked))
}

/// Checks, now that the vector table is locked, that what is stored is what was compared, and makes drops of the providers
/// wait.
pub fn confirm(base: &VectorTable, wanted: &VectorTable, checked: Option<&Checked>) -> Result<()> {
    let needed = Checked::between(base, wanted);
    if needed.is_some() && needed.as_ref() != checked {
        return Err(Error::ChangedMeanwhile { name: base.name.clone() });
    }
    needed.map_or(Ok(()), |needed| pin(&needed.settings))
}

/// Makes drops of the providers of questions wait until the transaction ends.
pub fn pin(settings: &QuestionSettings) -> Result<()> {
    for name in [&settings.query_provider, &settings.fallback].into_iter().flatten() {
        if let Some(server) = Server::named(name)? {
            depend::pin(&server)?;
        }
    }
    Ok(())
}

/// Checks that each provider of questions is usable by the current role and has the vectors of the documents.
pub fn check(vectors: &Vectors, settings: &QuestionSettings) -> Result<()> {
    let mut others = Vec::new();
    if settings.query_provider.is_some() || settings.query_model.is_some() {
        let argument = match settings.query_provider {
            Some(_) => "query_provider",
            None => "query_model",
        };
        let provider = settings.query_provider.as_ref().unwrap_or(&vectors.provider);
        others.push((argument, provider, settings.query_model.as_deref()));
    }
    if let Some(fallback) = &settings.fallback {
        others.push(("fallback", fallback, None));
    }
    if others.is_empty() {
        return Ok(());
    }
    if !shared::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    let (_, own) = vector(&vectors.provider, Some(&vectors.model), vectors)?;
    for (argument, provider, model) in others {
        let (model, other) = vector(provider, model, vectors)?;
        let similarity = cosine(&own, &other);
        if similarity < LEAST_SIMILARITY {
            return Err(Error::BadArgument {
                message: format!(
                    "{argument}: model \"{model}\" of provider \"{provider}\" has other vectors than the documents"
                ),
                detail: Some(format!(
                    "The cosine similarity of two vectors of one text is {similarity:.3}; it must be at least {LEAST_SIMILARITY}."
                )),
                hint: None,
            });
        }
    }
    Ok(())
}

/// The vector of the text by a provider, with the name of the model.
fn vector(name: &str, model: Option<&str>, of: &Vectors) -> Result<(String, Vec<f32>)> {
    let server = choose::provider(name)?;
    let model = embed::model_at(server.as_ref(), model, &of.model);
    // SAFETY: a plain read of the process's own state.
    let role = unsafe { pg_sys::GetUserId() };
    let (_, provider, of_name) = embed::way(server, "", role, &model, of.dimensions)?;
    let vector =
        client::embed(&provider, &of_name, InputType::Query, TEXT, guc::embedder_timeout())?;
    Ok((model, vector))
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    if lengths > 0.0 { dot(one, other) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn a_cosine_compares_directions() {
        assert!((cosine(&[1.0, 0.0], &[5.0, 0.0]) - 1.0).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 3.0]), 0.0);
    }
}
