//! Why an option of a provider cannot be used.

/// Why an option cannot be used. It never repeats the value of a secret one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such option here.
    #[error("invalid option \"{name}\"")]
    Unknown {
        /// What was given.
        name: String,
        /// The options that there are, for the HINT.
        valid: String,
    },
    /// There is no such key in the argument `options`.
    #[error("unknown key \"{name}\" in options")]
    UnknownKey {
        /// What was given.
        name: String,
        /// The keys that there are, as a sentence.
        detail: String,
    },
    /// An option that has to be there is not.
    #[error("option \"{name}\" is required")]
    Missing {
        /// Which one.
        name: &'static str,
        /// What to write, as a sentence.
        detail: String,
    },
    /// The value has the wrong form.
    #[error("invalid value for option \"{name}\"{}", shown.as_ref().map_or(String::new(), |v| format!(": \"{v}\"")))]
    Invalid {
        /// Which option.
        name: String,
        /// The value, unless it is a secret.
        shown: Option<String>,
        /// The form it has to have, as a sentence.
        detail: String,
    },
    /// A key that is read with the rights of the server's operating system user.
    #[error("only superusers may have option \"api_key\" read from the environment or from a file")]
    Reference,
}
