//! The script: rules for requests that get a special response, and how often each rule applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::Asked;
use super::respond::Respond;

/// A predicate on the content of a request.
type Condition = Box<dyn Fn(&Asked) -> bool + Send>;

/// A rule: which requests, and the response. All conditions of a rule must hold; the first matching rule applies.
///
///     fake.script(Rule::when_text("bad").respond(Respond::status(400)));
///     fake.script(Rule::always().respond(Respond::status(500)).times(3));
pub struct Rule {
    conditions: Vec<Condition>,
    respond: Respond,
    left: Option<u64>,
    pass: u64,
    hits: Arc<AtomicU64>,
}

impl Rule {
    /// Every request, including those that cannot be parsed.
    pub fn always() -> Rule {
        Rule {
            conditions: Vec::new(),
            respond: Respond::well(),
            left: None,
            pass: 0,
            hits: Arc::default(),
        }
    }

    /// Requests for which this is true.
    pub fn when(condition: impl Fn(&Asked) -> bool + Send + 'static) -> Rule {
        Rule::always().and(condition)
    }

    /// Requests with a text that contains this one.
    pub fn when_text(part: &str) -> Rule {
        let part = part.to_string();
        Rule::when(move |asked| asked.texts.iter().any(|text| text.contains(&part)))
    }

    /// Requests for this model.
    pub fn when_model(model: &str) -> Rule {
        let model = model.to_string();
        Rule::when(move |asked| asked.model == model)
    }

    /// Adds a condition.
    #[must_use]
    pub fn and(mut self, condition: impl Fn(&Asked) -> bool + Send + 'static) -> Rule {
        self.conditions.push(Box::new(condition));
        self
    }

    /// The response.
    #[must_use]
    pub fn respond(mut self, respond: Respond) -> Rule {
        self.respond = respond;
        self
    }

    /// Applies only this many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Rule {
        self.left = Some(times);
        self
    }

    /// Applies only once.
    #[must_use]
    pub fn once(self) -> Rule {
        self.times(1)
    }

    /// Skips the first matching requests.
    #[must_use]
    pub fn pass(mut self, requests: u64) -> Rule {
        self.pass = requests;
        self
    }

    /// The response to this request, if the rule matches.
    fn apply(&mut self, asked: Option<&Asked>) -> Option<Respond> {
        let meant = match asked {
            Some(asked) => self.conditions.iter().all(|condition| condition(asked)),
            None => self.conditions.is_empty(),
        };
        if !meant || self.left == Some(0) {
            return None;
        }
        if self.pass > 0 {
            self.pass -= 1;
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(self.respond.clone())
    }
}

/// The rules of a fake, in order.
#[derive(Default)]
pub(super) struct Script(Mutex<Vec<Rule>>);

impl Script {
    /// Appends a rule.
    pub fn add(&self, rule: Rule) -> Scripted {
        let hits = rule.hits.clone();
        self.rules(|rules| rules.push(rule));
        Scripted { hits }
    }

    /// Removes a rule, or all.
    pub fn remove(&self, only: Option<&Scripted>) {
        self.rules(|rules| {
            rules.retain(|rule| only.is_some_and(|only| !Arc::ptr_eq(&only.hits, &rule.hits)));
        });
    }

    /// The response to a request; an unparsable one has no content.
    pub fn respond(&self, asked: Option<&Asked>) -> Respond {
        self.rules(|rules| rules.iter_mut().find_map(|rule| rule.apply(asked)))
            .unwrap_or_else(Respond::well)
    }

    fn rules<T>(&self, work: impl FnOnce(&mut Vec<Rule>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A rule in use by a fake.
#[derive(Debug, Clone)]
pub struct Scripted {
    hits: Arc<AtomicU64>,
}

impl Scripted {
    /// How often this rule applied.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}
