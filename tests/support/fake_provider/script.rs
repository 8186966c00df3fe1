//! The script: which requests are treated otherwise than well, how often, and how often that happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::Asked;
use super::respond::Respond;

/// Looks at what is asked and says whether a rule is meant.
type Condition = Box<dyn Fn(&Asked) -> bool + Send>;

/// Which requests, and what becomes of them. All conditions of a rule have to hold; of several rules, the first counts.
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
    /// Every request, also one that cannot be read.
    pub fn always() -> Rule {
        Rule {
            conditions: Vec::new(),
            respond: Respond::well(),
            left: None,
            pass: 0,
            hits: Arc::default(),
        }
    }

    /// Requests of which this is true.
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

    /// And this is true of them.
    #[must_use]
    pub fn and(mut self, condition: impl Fn(&Asked) -> bool + Send + 'static) -> Rule {
        self.conditions.push(Box::new(condition));
        self
    }

    /// What becomes of them.
    #[must_use]
    pub fn respond(mut self, respond: Respond) -> Rule {
        self.respond = respond;
        self
    }

    /// Only the first so many of them.
    #[must_use]
    pub fn times(mut self, times: u64) -> Rule {
        self.left = Some(times);
        self
    }

    /// Only the first of them.
    #[must_use]
    pub fn once(self) -> Rule {
        self.times(1)
    }

    /// But not the first so many of them.
    #[must_use]
    pub fn pass(mut self, requests: u64) -> Rule {
        self.pass = requests;
        self
    }

    /// What becomes of this request, if the rule means it.
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

/// The rules of a fake, in their order.
#[derive(Default)]
pub(super) struct Script(Mutex<Vec<Rule>>);

impl Script {
    /// Puts a rule behind the others.
    pub fn add(&self, rule: Rule) -> Scripted {
        let hits = rule.hits.clone();
        self.rules(|rules| rules.push(rule));
        Scripted { hits }
    }

    /// Forgets a rule, or all.
    pub fn remove(&self, only: Option<&Scripted>) {
        self.rules(|rules| {
            rules.retain(|rule| only.is_some_and(|only| !Arc::ptr_eq(&only.hits, &rule.hits)));
        });
    }

    /// What becomes of a request; one that cannot be read asks nothing.
    pub fn respond(&self, asked: Option<&Asked>) -> Respond {
        self.rules(|rules| rules.iter_mut().find_map(|rule| rule.apply(asked)))
            .unwrap_or_else(Respond::well)
    }

    fn rules<T>(&self, work: impl FnOnce(&mut Vec<Rule>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A rule that was given to a fake.
#[derive(Debug, Clone)]
pub struct Scripted {
    hits: Arc<AtomicU64>,
}

impl Scripted {
    /// How many requests were treated by this rule.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}
