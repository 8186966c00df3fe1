//! Remembers the vectors of questions for one statement, so that `embedd.embed()` in a condition on every row costs one call
//! of the provider.

use std::cell::RefCell;

use crate::error::Result;
use crate::moment::Moment;

/// How many questions of one statement are remembered.
const MOST: usize = 8;

/// The questions of one moment, the latest last: vector table, text, and vector.
struct Remembered {
    moment: Moment,
    questions: Vec<(String, String, Vec<f32>)>,
}

thread_local! {
    static REMEMBERED: RefCell<Option<Remembered>> = const { RefCell::new(None) };
}

/// The vector of a question: the one remembered for this statement, or what `embed` computes.
pub fn or_else(
    vector_table: &str,
    text: &str,
    embed: impl FnOnce() -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let Some(moment) = Moment::now() else { return embed() };
    let known = REMEMBERED.with_borrow(|remembered| {
        let questions = &remembered.as_ref().filter(|r| r.moment == moment)?.questions;
        let found = questions.iter().rev().find(|(name, of, _)| name == vector_table && of == text);
        found.map(|(_, _, vector)| vector.clone())
    });
    if let Some(vector) = known {
        return Ok(vector);
    }
    let vector = embed()?;
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.as_ref().is_none_or(|r| r.moment != moment) {
            *remembered = Some(Remembered { moment, questions: Vec::new() });
        }
        if let Some(Remembered { questions, .. }) = remembered {
            if questions.len() == MOST {
                questions.remove(0);
            }
            questions.push((vector_table.to_string(), text.to_string(), vector.clone()));
        }
    });
    Ok(vector)
}
