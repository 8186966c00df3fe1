//! How the questions of a vector table are embedded and answered, as far as that is configured. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The recall that a vector table without a target has.
const RECALL_TARGET: f64 = 0.98;

/// Whether privileges and policies of the source apply to the readers of a vector table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowSecurity {
    /// They do.
    #[default]
    Auto,
    /// Not by embedd.
    Off,
}

impl RowSecurity {
    /// The argument row_security.
    fn parse(word: &str) -> Result<RowSecurity> {
        match word {
            "auto" => Ok(RowSecurity::Auto),
            "off" => Ok(RowSecurity::Off),
            other => Err(Error::BadArgument {
                message: format!("row_security \"{other}\" is not available"),
                detail: Some("Valid values: auto, off.".to_string()),
                hint: None,
            }),
        }
    }
}

/// The column question_settings of embedd.vector_tables, and the arguments of the same names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuestionSettings {
    /// The part of the nearest rows that query() shall find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall_target: Option<f64>,
    /// The provider that embeds questions, and the name of the model there; None for those of the documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_model: Option<String>,
    /// The provider that embeds questions while the first one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_security: Option<RowSecurity>,
}

impl QuestionSettings {
    /// The arguments of a function; null leaves a setting as it is.
    pub fn given(
        recall_target: Option<f64>,
        query_provider: Option<String>,
        query_model: Option<String>,
        fallback: Option<String>,
        row_security: Option<&str>,
    ) -> Result<QuestionSettings> {
        let row_security = row_security.map(RowSecurity::parse).transpose()?;
        Ok(QuestionSettings { recall_target, query_provider, query_model, fallback, row_security })
    }

    /// These settings after a change: null leaves a setting as it is, and an empty text removes it.
    pub fn changed(&self, by: &QuestionSettings) -> Result<QuestionSettings> {
        if let Some(target) = by.recall_target.filter(|target| !(0.5..=1.0).contains(target)) {
            return Err(Error::bad_argument(format!(
                "recall_target {target} is outside the range 0.5 to 1.0"
            )));
        }
        let text = |old: &Option<String>, new: &Option<String>| match new.as_deref() {
            None => old.clone(),
            Some("") => None,
            Some(new) => Some(new.to_string()),
        };
        Ok(QuestionSettings {
            recall_target: by.recall_target.or(self.recall_target),
            query_provider: text(&self.query_provider, &by.query_provider),
            query_model: text(&self.query_model, &by.query_model),
            fallback: text(&self.fallback, &by.fallback),
            // The default is not stored.
            row_security: by
                .row_security
                .or(self.row_security)
                .filter(|of| *of == RowSecurity::Off),
        })
    }

    /// The part that says which provider embeds questions, and by which model.
    pub fn asking(&self) -> QuestionSettings {
        QuestionSettings { recall_target: None, row_security: None, ..self.clone() }
    }

    /// The settings to store; None where all are the default.
    pub fn unless_default(&self) -> Option<&Self> {
        (*self != Self::default()).then_some(self)
    }

    /// Whether privileges and policies of the source apply to the vectors.
    pub fn follows_row_security(&self) -> bool {
        self.row_security.unwrap_or_default() == RowSecurity::Auto
    }

    /// The recall that query() is to have.
    pub fn target(&self) -> f64 {
        self.recall_target.unwrap_or(RECALL_TARGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_sets_and_removes() {
        let some = |text: &str| Some(text.to_string());
        let before = QuestionSettings {
            recall_target: Some(0.9),
            query_provider: some("a"),
            query_model: None,
            fallback: some("b"),
            row_security: Some(RowSecurity::Off),
        };
        let nothing = QuestionSettings::default();
        assert_eq!(before.changed(&nothing).unwrap(), before);
        let change = QuestionSettings {
            recall_target: Some(1.0),
            query_provider: some(""),
            query_model: some("m"),
            fallback: None,
            row_security: Some(RowSecurity::Auto),
        };
        let after = before.changed(&change).unwrap();
        assert_eq!((after.target(), after.query_provider.as_deref()), (1.0, None));
        assert_eq!(
            (after.query_model.as_deref(), after.fallback.as_deref()),
            (Some("m"), Some("b"))
        );
        assert_eq!(after.row_security, None);
        assert!(after.asking() != before.asking() && nothing.target() == RECALL_TARGET);
        for target in [0.49, 1.01, f64::NAN] {
            let change = QuestionSettings { recall_target: Some(target), ..nothing.clone() };
            assert!(before.changed(&change).is_err(), "{target}");
        }
    }
}
