//! The model's weights in memory: 16-bit integers, each row with its own scale, laid out for the kernels.
//!
//! A sum of products of two integer rows is at most the product of their lengths (Cauchy-Schwarz). Every row, of
//! weights here and of activations in `math`, is scaled to a length of at most [`ROW_LENGTH`], whose square is below
//! 2^31: so a 32-bit sum can never overflow, and every instruction set gets the same sum to the last bit.

use super::ModelError;
use super::config::Config;
use super::kernels::{Line, PANEL};
use super::safetensors::TensorFile;

/// The Euclidean length integer rows are scaled to; the room up to 46,340 is for rounding.
pub(super) const ROW_LENGTH: f32 = 46_000.0;

/// The largest single integer in a row; the room up to 32,767 is for rounding.
pub(super) const ROW_PEAK: f32 = 32_700.0;

/// The factor that turns a row of floats, given its largest value and its squared length, into integers.
#[inline(always)]
pub(super) fn row_factor(peak: f32, squared: f32) -> f32 {
    let factor = (ROW_PEAK / peak).min(ROW_LENGTH / squared.sqrt());
    if factor.is_finite() { factor } else { 0.0 }
}

/// One dense layer: `outputs` sums over `inputs` numbers.
pub(super) struct Linear {
    pub inputs: usize,
    pub outputs: usize,
    /// Panels of [`PANEL`] outputs; in a panel, pairs of inputs; in a pair, the outputs' two weights side by side.
    pub panels: Vec<Line>,
    /// What one unit of each output's integer sum is worth; padded to whole panels, as `bias` is.
    pub unit: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Scale and shift of a layer normalisation.
pub(super) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

/// One transformer layer.
pub(super) struct Layer {
    /// Queries, keys and values in one; the queries already divided by the square root of the head size.
    pub qkv: Linear,
    pub mix: Linear,
    pub mix_norm: Norm,
    pub up: Linear,
    pub down: Linear,
    pub down_norm: Norm,
}

/// The table of word pieces, and the table of positions with the one token type already added.
pub(super) struct Embeddings {
    words: Vec<i16>,
    word_units: Vec<f32>,
    positions: Vec<f32>,
    hidden: usize,
    pub norm: Norm,
}

/// Everything the forward pass needs.
pub(super) struct Weights {
    pub embeddings: Embeddings,
    pub layers: Vec<Layer>,
}

impl Weights {
    /// Reads and packs every tensor.
    pub fn read(file: &TensorFile, config: &Config) -> Result<Weights, ModelError> {
        let layers = (0..config.layers)
            .map(|index| Layer::read(file, config, index))
            .collect::<Result<_, _>>()?;
        Ok(Weights { embeddings: Embeddings::read(file, config)?, layers })
    }
}

impl Embeddings {
    fn read(file: &TensorFile, config: &Config) -> Result<Embeddings, ModelError> {
        let hidden = config.hidden;
        let mut words = Vec::with_capacity(config.vocabulary * hidden);
        let mut word_units = Vec::with_capacity(config.vocabulary);
        file.read_rows("embeddings.word_embeddings.weight", [config.vocabulary, hidden], |row| {
            word_units.push(pack_row(row, |value| words.push(value)));
        })?;
        let mut positions =
            file.read("embeddings.position_embeddings.weight", &[config.positions, hidden])?;
        let types =
            file.read("embeddings.token_type_embeddings.weight", &[config.types, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(value, add)| *value += add);
        }
        let norm = Norm::read(file, config, "embeddings.LayerNorm")?;
        Ok(Embeddings { words, word_units, positions, hidden, norm })
    }

    /// Writes the sum of a word piece's row and a position's row.
    #[inline(always)]
    pub fn write(&self, id: usize, position: usize, out: &mut [f32]) {
        let words = &self.words[id * self.hidden..][..self.hidden];
        let positions = &self.positions[position * self.hidden..][..self.hidden];
        let unit = self.word_units[id];
        for ((out, word), position) in out.iter_mut().zip(words).zip(positions) {
            *out = f32::from(*word) * unit + position;
        }
    }
}

impl Layer {
    fn read(file: &TensorFile, config: &Config, index: usize) -> Result<Layer, ModelError> {
        let Config { hidden, intermediate, .. } = *config;
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let linear = |part: &str, inputs, outputs| {
            let mut builder = Builder::default();
            builder.add(file, &name(part), inputs, outputs, 1.0)?;
            Ok::<_, ModelError>(builder.pack(inputs))
        };
        let mut qkv = Builder::default();
        let share = 1.0 / (config.head_size() as f32).sqrt();
        for (part, factor) in [("query", share), ("key", 1.0), ("value", 1.0)] {
            qkv.add(file, &name(&format!("attention.self.{part}")), hidden, hidden, factor)?;
        }
        Ok(Layer {
            qkv: qkv.pack(hidden),
            mix: linear("attention.output.dense", hidden, hidden)?,
            mix_norm: Norm::read(file, config, &name("attention.output.LayerNorm"))?,
            up: linear("intermediate.dense", hidden, intermediate)?,
            down: linear("output.dense", intermediate, hidden)?,
            down_norm: Norm::read(file, config, &name("output.LayerNorm"))?,
        })
    }
}

impl Norm {
    fn read(file: &TensorFile, config: &Config, name: &str) -> Result<Norm, ModelError> {
        let read = |part| file.read(&format!("{name}.{part}"), &[config.hidden]);
        Ok(Norm { weight: read("weight")?, bias: read("bias")?, epsilon: config.epsilon })
    }
}

/// A dense layer's floats, before they are packed.
#[derive(Default)]
pub(super) struct Builder {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Builder {
    /// Appends the outputs of one named layer, multiplied by `factor`.
    fn add(
        &mut self,
        file: &TensorFile,
        name: &str,
        inputs: usize,
        outputs: usize,
        factor: f32,
    ) -> Result<(), ModelError> {
        let weight = file.read(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = file.read(&format!("{name}.bias"), &[outputs])?;
        self.weight.extend(weight.iter().map(|value| value * factor));
        self.bias.extend(bias.iter().map(|value| value * factor));
        Ok(())
    }

    /// Turns the floats into integers in the kernels' order.
    pub fn pack(self, inputs: usize) -> Linear {
        let outputs = self.bias.len();
        let panels = outputs.div_ceil(PANEL);
        let mut linear = Linear {
            inputs,
            outputs,
            panels: vec![Line::default(); panels * inputs],
            unit: vec![0.0; panels * PANEL],
            bias: self.bias,
        };
        linear.bias.resize(panels * PANEL, 0.0);
        for (output, row) in self.weight.chunks_exact(inputs).enumerate() {
            let panel = &mut linear.panels[output / PANEL * inputs..][..inputs];
            let column = output % PANEL;
            let mut input = 0;
            linear.unit[output] = pack_row(row, |value| {
                // A pair of inputs takes two lines, each with half the panel's outputs.
                let line = &mut panel[input / 2 * 2 + column / (PANEL / 2)];
                line.0[column % (PANEL / 2) * 2 + input % 2] = value;
                input += 1;
            });
        }
        linear
    }
}

/// Hands out a row as integers and returns what one unit of them is worth.
fn pack_row(row: &[f32], mut each: impl FnMut(i16)) -> f32 {
    let peak = row.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
    let squared = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
    let factor = row_factor(peak, squared as f32);
    row.iter().for_each(|value| each((value * factor).round() as i16));
    if factor == 0.0 { 0.0 } else { 1.0 / factor }
}
