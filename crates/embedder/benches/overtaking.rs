//! The latency of a question while documents saturate the local model, compared with an idle model, over the program's
//! socket.
//!
//!     EMBEDD_MODEL_DIR=... cargo bench -p embedd-embedder --bench overtaking [-- ROUNDS [PROGRAM ...]]
//!
//! Each round measures an idle program, one with documents only, and one with both; several programs take turns.
//! Every question is new; texts are random words from a fixed seed.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embedd_wire::{
    Config, FrameBuffer, InputType, LOCAL_MODEL, Model, Order, Priority, Provider, Request,
    decode_reply, encode_request,
};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The duration of each part of a round.
const PART: Duration = Duration::from_secs(10);

/// The interval between questions.
const PACE: Duration = Duration::from_millis(150);

/// What a sync worker keeps in flight: requests, and texts in each.
const REQUESTS: u64 = 16;
const TEXTS: usize = 16;

const WORDS: &str = "a the of and in to is was for on with as by at from that this are be it an or which have not has \
    data query index table search text model vector meaning document database answer question sentence paragraph \
    photosynthesis cardiovascular constitutional unprecedented infrastructure electromagnetic biodiversity";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overtaking: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    let model = std::env::var_os("EMBEDD_MODEL_DIR").ok_or("EMBEDD_MODEL_DIR is not set")?;
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let mut programs: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if programs.is_empty() {
        programs.push(env!("CARGO_BIN_EXE_embedd-embedder").into());
    }
    for (kind, words) in [("short documents", [18, 36]), ("long documents", [180, 250])] {
        let mut figures: Vec<Figures> = programs.iter().map(|_| Figures::default()).collect();
        for _ in 0..rounds {
            for (program, figures) in programs.iter().zip(&mut figures) {
                let program = Program::start(program, Path::new(&model))?;
                figures.idle.extend(questions(&program, PART)?);
                let (alone, _) = backfill(&program, words, None)?;
                let (beside, times) = backfill(&program, words, Some(PACE))?;
                figures.rates.push((alone, beside));
                figures.busy.extend(times);
            }
        }
        for (program, figures) in programs.iter().zip(&mut figures) {
            println!("{kind}, {}: {}", program.display(), figures.describe());
        }
    }
    Ok(())
}

/// The measurements of one program.
#[derive(Default)]
struct Figures {
    idle: Vec<Duration>,
    busy: Vec<Duration>,
    rates: Vec<(f64, f64)>,
}

impl Figures {
    fn describe(&mut self) -> String {
        let [idle, busy] = [&mut self.idle, &mut self.busy].map(|times| {
            times.sort();
            [50, 90, 99].map(|part| {
                times.get(times.len() * part / 100).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
            })
        });
        let sum = |rate: fn(&(f64, f64)) -> f64| self.rates.iter().map(rate).sum::<f64>();
        let (alone, beside) = (sum(|rates| rates.0), sum(|rates| rates.1));
        let rounds = self.rates.len() as f64;
        format!(
            "idle p50 {:.1} p90 {:.1} p99 {:.1} ms ({}); busy p50 {:.1} p90 {:.1} p99 {:.1} ms ({}); ratios {:.2} {:.2} \
             {:.2}; texts a second {:.1} alone, {:.1} beside questions: {:+.1} %",
            idle[0],
            idle[1],
            idle[2],
            self.idle.len(),
            busy[0],
            busy[1],
            busy[2],
            self.busy.len(),
            busy[0] / idle[0],
            busy[1] / idle[1],
            busy[2] / idle[2],
            alone / rounds,
            beside / rounds,
            100.0 * (beside / alone - 1.0)
        )
    }
}

/// Asks questions at their interval for this time.
fn questions(program: &Program, most: Duration) -> Fallible<Vec<Duration>> {
    let mut client = program.client()?;
    let (begin, mut times, mut random) = (Instant::now(), Vec::new(), program.seed());
    while begin.elapsed() < most {
        let request = request(Priority::Question, 1, vec![text([6, 14], &mut random)]);
        let asked = Instant::now();
        client.send(&request)?;
        client.receive()?;
        times.push(asked.elapsed());
        std::thread::sleep(PACE.saturating_sub(asked.elapsed()));
    }
    Ok(times)
}

/// Keeps the program busy with documents; returns texts a second, and the latency of each question if there are any.
fn backfill(
    program: &Program,
    words: [usize; 2],
    pace: Option<Duration>,
) -> Fallible<(f64, Vec<Duration>)> {
    let stop = AtomicBool::new(false);
    let mut client = program.client()?;
    let mut random = program.seed();
    let mut next = |id| {
        request(Priority::Backfill, id, (0..TEXTS).map(|_| text(words, &mut random)).collect())
    };
    for id in 0..REQUESTS {
        client.send(&next(id))?;
    }
    std::thread::scope(|scope| {
        let stop = &stop;
        let asking = scope.spawn(move || {
            let times = match pace {
                Some(_) => questions(program, PART),
                None => {
                    std::thread::sleep(PART);
                    Ok(Vec::new())
                }
            };
            stop.store(true, Ordering::Relaxed);
            times
        });
        // The clock starts and ends with an answer.
        let id = client.receive()?;
        client.send(&next(id))?;
        let (begin, mut count, mut last) = (Instant::now(), 0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let id = client.receive()?;
            client.send(&next(id))?;
            count += TEXTS;
            last = begin.elapsed();
        }
        let times = asking.join().map_err(|_| "the asking thread failed")??;
        Ok((count as f64 / last.as_secs_f64(), times))
    })
}

fn request(priority: Priority, id: u64, texts: Vec<String>) -> Request {
    let input_type = match priority {
        Priority::Question => InputType::Query,
        _ => InputType::Document,
    };
    Request {
        id,
        provider: Provider::local(),
        model: Model::of_unknown_limits(LOCAL_MODEL, 384),
        input_type,
        priority,
        more: false,
        timeout_ms: 60_000,
        is_test: false,
        texts,
    }
}

/// A text of random words; the two numbers bound their count.
fn text(words: [usize; 2], random: &mut u64) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let mut draw = |most: usize| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) as usize % most
    };
    let count = words[0] + draw(words[1] - words[0]);
    let words: Vec<&str> = (0..count).map(|_| all[draw(all.len())]).collect();
    words.join(" ")
}

/// A running program; dropping it ends it.
struct Program {
    child: Child,
    directory: PathBuf,
    seeds: AtomicU64,
}

impl Program {
    fn start(path: &Path, model: &Path) -> Fallible<Program> {
        let directory = std::env::temp_dir().join(format!("embedd-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory)?;
        let listener = UnixListener::bind(directory.join("s"))?;
        // The shell passes the listening socket on as descriptor 3, which Rust would close.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" --socket 3 3<&2 2>/dev/null"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(OwnedFd::from(listener))
            .spawn()?;
        let config = Config {
            local_model_path: model.to_path_buf(),
            local_threads: std::env::var("THREADS").map_or(Ok(0), |count| count.parse())?,
            local_idle_unload: None,
            query_cache_bytes: 1 << 20,
            ca_file: None,
            usage_path: None,
            memory_limit: None,
        };
        let mut order = serde_json::to_vec(&Order::Configure(config))?;
        order.push(b'\n');
        child.stdin.as_mut().ok_or("no standard input")?.write_all(&order)?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let program = Program { child, directory, seeds: AtomicU64::new(1) };
        let mut lines = BufReader::new(output).lines();
        lines.next().ok_or("the program did not start")??;
        std::thread::spawn(move || lines.for_each(drop));
        // The first request loads the model.
        let mut client = program.client()?;
        client.send(&request(Priority::Backfill, 0, vec!["first".to_string()]))?;
        client.receive()?;
        Ok(program)
    }

    fn client(&self) -> Fallible<Client> {
        let stream = UnixStream::connect(self.directory.join("s"))?;
        Ok(Client { stream, buffer: FrameBuffer::default() })
    }

    /// A different start of the random words each time.
    fn seed(&self) -> u64 {
        self.seeds.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Client {
    stream: UnixStream,
    buffer: FrameBuffer,
}

impl Client {
    fn send(&mut self, request: &Request) -> Fallible<()> {
        Ok(self.stream.write_all(&encode_request(request)?)?)
    }

    /// The id of the request that was answered with vectors.
    fn receive(&mut self) -> Fallible<u64> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            if let Some(body) = self.buffer.next_frame()? {
                let reply = decode_reply(body)?;
                reply.outcome?;
                return Ok(reply.id);
            }
            let count = self.stream.read(&mut bytes)?;
            if count == 0 {
                return Err("the program closed the connection".into());
            }
            self.buffer.extend(&bytes[..count]);
        }
    }
}
