//! Throughput of the local model compared with Python's onnxruntime: same texts, same cores, two threads each, in
//! turns.
//!
//!     EMBEDD_MODEL_DIR=... taskset -c 0,1 cargo bench -p embedd-embedder
//!
//! Python is `EMBEDD_BENCH_PYTHON`, or a virtual environment in `~/.cache/embedd/bench-venv`, with `numpy`, `onnx`,
//! `onnxruntime` and `tokenizers` installed. The texts are random words from a fixed seed; the figures are medians.

use embedd_embedder::local::{Model, Scratch, Tokens};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The threads of each side.
const THREADS: usize = 2;

/// How many turns each side has with each kind of text.
const ROUNDS: usize = 7;

/// The kinds of text: name, number of texts, words in each, texts in a batch.
const KINDS: [(&str, usize, [usize; 2], usize); 3] =
    [("short", 512, [18, 36], 32), ("long", 32, [256, 300], 16), ("question", 100, [6, 14], 1)];

const WORDS: &str = "a the of and in to is was for on with as by at from that this are be it an or which have not has \
    but their they more when where how why many most data query index table search text model vector meaning document \
    database answer question sentence paragraph network machine learning language city river mountain history music \
    engine hospital government science company market price window garden kitchen teacher student weather winter summer \
    photosynthesis cardiovascular constitutional unprecedented infrastructure electromagnetic biodiversity";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local_model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let dir = std::env::var_os("EMBEDD_MODEL_DIR")
        .map(PathBuf::from)
        .ok_or("EMBEDD_MODEL_DIR is not set")?;
    let begin = Instant::now();
    let model = Model::open(&dir)?;
    println!(
        "embedd: {}, opened in {:.0?}, {}",
        model.instructions().name(),
        begin.elapsed(),
        memory()
    );
    let mut python = Python::start(&dir).map_err(|error| {
        format!(
            "NO COMPARISON: onnxruntime for Python is not available ({error}); \
             python3 -m venv ~/.cache/embedd/bench-venv && \
             ~/.cache/embedd/bench-venv/bin/pip install numpy onnx onnxruntime tokenizers"
        )
    })?;
    println!(
        "{:>9} {:>7} {:>14} {:>14} {:>7} {:>21} {:>15}",
        "",
        "pieces",
        "embedd /s",
        "onnxruntime /s",
        "ratio",
        "lowest/highest ratio",
        "lowest cosine"
    );
    let mut random = 1;
    for (name, count, words, batch) in KINDS {
        let mut texts: Vec<String> = (0..count).map(|_| text(words, &mut random)).collect();
        texts.sort_by_key(|text| model.tokenize(text).ids.len());
        let pieces: usize = texts.iter().map(|text| model.tokenize(text).ids.len()).sum();
        python.ask(json!({ "texts": texts }))?;

        let theirs = python.ask(json!({"batch": batch, "vectors": true}))?;
        let cosine = lowest_cosine(&ours(&model, &texts, batch).1, &theirs["vectors"])?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let theirs =
                python.ask(json!({ "batch": batch }))?["seconds"].as_f64().ok_or("no time")?;
            rounds.push((ours(&model, &texts, batch).0, theirs));
        }
        let ratios = sorted(rounds.iter().map(|(ours, theirs)| theirs / ours));
        println!(
            "{name:>9} {:>7.1} {:>14.1} {:>14.1} {:>7.2} {:>14.2} {:>6.2} {cosine:>15.7}",
            pieces as f64 / count as f64,
            count as f64 / sorted(rounds.iter().map(|round| round.0))[ROUNDS / 2],
            count as f64 / sorted(rounds.iter().map(|round| round.1))[ROUNDS / 2],
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1],
        );
    }
    println!("embedd: {} after all batches", memory());
    println!(
        "The times of both sides include tokenization. A question is one text at a time: embedd answers it on one thread, onnxruntime on {THREADS}."
    );
    Ok(())
}

/// Embeds all texts on the allowed threads and returns the time; a single text in a batch uses one thread.
fn ours(model: &Model, texts: &[String], size: usize) -> (f64, Vec<Vec<f32>>) {
    let threads = if size == 1 { 1 } else { THREADS };
    let next = AtomicUsize::new(0);
    let batches: Vec<&[String]> = texts.chunks(size).collect();
    let begin = Instant::now();
    let work = || {
        let mut scratch = Scratch::default();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(index) else {
                return done;
            };
            let tokens: Vec<Tokens> = batch.iter().map(|text| model.tokenize(text)).collect();
            done.push((index, model.embed(&tokens.iter().collect::<Vec<_>>(), &mut scratch)));
        }
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    done.sort_by_key(|(index, _)| *index);
    (seconds, done.into_iter().flat_map(|(_, vectors)| vectors).collect())
}

/// The Python side.
struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(dir: &Path) -> Result<Python, Box<dyn Error>> {
        let program = match (std::env::var_os("EMBEDD_BENCH_PYTHON"), std::env::var_os("HOME")) {
            (Some(program), _) => PathBuf::from(program),
            (None, Some(home)) => PathBuf::from(home).join(".cache/embedd/bench-venv/bin/python"),
            (None, None) => PathBuf::from("python3"),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/local_model_onnx.py");
        let mut child = Command::new(&program)
            .arg(script)
            .arg("--serve")
            .arg(dir)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut python = Python { child, input, output };
        println!(
            "onnxruntime: {}",
            python.answer()?["version"].as_str().unwrap_or("of unknown version")
        );
        python.ask(json!({"threads": THREADS, "fused": true}))?;
        Ok(python)
    }

    fn ask(&mut self, request: Value) -> Result<Value, Box<dyn Error>> {
        writeln!(self.input, "{request}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, Box<dyn Error>> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("the Python side has ended: {}", self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text of random words; the two numbers bound their count.
fn text([least, most]: [usize; 2], random: &mut u64) -> String {
    let mut draw = |below: usize| {
        *random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) as usize % below
    };
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let count = least + draw(most - least + 1);
    (0..count).map(|_| words[draw(words.len())]).collect::<Vec<_>>().join(" ")
}

/// The lowest cosine similarity between our vectors and theirs.
fn lowest_cosine(ours: &[Vec<f32>], theirs: &Value) -> Result<f64, Box<dyn Error>> {
    let theirs: Vec<Vec<f64>> = serde_json::from_value(theirs.clone())?;
    if ours.len() != theirs.len() {
        return Err("the two sides gave different numbers of vectors".into());
    }
    let cosine = |(ours, theirs): (&Vec<f32>, &Vec<f64>)| {
        let dot: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(*a) * b).sum();
        let squares: f64 = ours.iter().map(|a| f64::from(*a).powi(2)).sum();
        dot / (squares * theirs.iter().map(|b| b * b).sum::<f64>()).sqrt()
    };
    Ok(ours.iter().zip(&theirs).map(cosine).fold(1.0, f64::min))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The memory of this process, as the operating system reports it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    format!("{} in memory", line.map_or("an unknown amount", str::trim))
}
