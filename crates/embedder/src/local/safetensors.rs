//! Reads tensors out of a `.safetensors` file, trusting nothing it says before checking it.
//!
//! The file is read, not mapped: every weight is repacked as it is read, so a mapping would save no memory, and
//! truncating a mapped file would end the process with SIGBUS instead of an error.

use super::ModelError;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A larger header is treated as damage.
const LARGEST_HEADER: u64 = 16 << 20;

/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// An open file whose header has been read and checked.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: HashMap<String, Tensor>,
    data_start: u64,
}

/// A tensor as described in the header.
#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl TensorFile {
    /// Opens the file and checks that its header fits its size.
    pub fn open(path: &Path) -> Result<TensorFile, ModelError> {
        let damaged = |reason: String| ModelError::damaged(path, reason);
        let file = File::open(path).map_err(|error| ModelError::io(path, error))?;
        let size = file.metadata().map_err(|error| ModelError::io(path, error))?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(damaged(format!("{size} bytes are too few for a safetensors file")));
        }
        file.read_exact_at(&mut length, 0).map_err(|error| ModelError::io(path, error))?;
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER || length > size - 8 {
            return Err(damaged(format!(
                "a header of {length} bytes cannot be in a file of {size} bytes"
            )));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).map_err(|error| ModelError::io(path, error))?;
        let header: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("its header is not JSON: {error}")))?;

        let data_size = size - 8 - length;
        let mut tensors = HashMap::new();
        let mut last = 0;
        for (name, value) in header {
            if name == "__metadata__" {
                continue;
            }
            let tensor: Tensor = serde_json::from_value(value)
                .map_err(|error| damaged(format!("header of {name:?}: {error}")))?;
            let (begin, end) = tensor.data_offsets;
            if begin > end || end > data_size {
                return Err(damaged(format!(
                    "{name:?} is said to be at bytes {begin} to {end} of {data_size}; the file is cut short or its header is wrong"
                )));
            }
            last = last.max(end);
            tensors.insert(name, tensor);
        }
        if last != data_size {
            return Err(damaged(format!("{} bytes behind the last tensor", data_size - last)));
        }
        Ok(TensorFile { path: path.to_path_buf(), file, tensors, data_start: 8 + length })
    }

    /// Reads a tensor of 32-bit floats of exactly this shape.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let mut values = Vec::with_capacity(shape.iter().product());
        self.read_pieces(name, shape, 1, |piece| values.extend_from_slice(piece))?;
        Ok(values)
    }

    /// Reads a table row by row, so that it is never in memory as a whole.
    pub fn read_rows(
        &self,
        name: &str,
        shape: [usize; 2],
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), ModelError> {
        self.read_pieces(name, &shape, shape[1], |piece| {
            piece.chunks_exact(shape[1]).for_each(&mut each)
        })
    }

    /// Validates one tensor and passes its values on in pieces, each a whole multiple of `unit` values.
    fn read_pieces(
        &self,
        name: &str,
        shape: &[usize],
        unit: usize,
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::damaged(&self.path, reason);
        let tensor =
            self.tensors.get(name).ok_or_else(|| damaged(format!("no tensor {name:?}")))?;
        if tensor.dtype != "F32" {
            return Err(damaged(format!(
                "{name:?} has type {:?}, and must have \"F32\"",
                tensor.dtype
            )));
        }
        if !tensor.shape.iter().copied().eq(shape.iter().map(|n| *n as u64)) {
            return Err(damaged(format!(
                "{name:?} has shape {:?}, and config.json asks for {shape:?}",
                tensor.shape
            )));
        }
        let (begin, end) = tensor.data_offsets;
        let size = shape.iter().product::<usize>() * 4;
        if end - begin != size as u64 {
            return Err(damaged(format!(
                "{name:?} has {} bytes, and its shape needs {size}",
                end - begin
            )));
        }
        let step = (PIECE / (unit * 4)).max(1) * unit * 4;
        let mut bytes = vec![0; step.min(size)];
        let mut values = Vec::with_capacity(bytes.len() / 4);
        for start in (0..size).step_by(step) {
            let bytes = &mut bytes[..step.min(size - start)];
            self.file
                .read_exact_at(bytes, self.data_start + begin + start as u64)
                .map_err(|error| ModelError::io(&self.path, error))?;
            values.clear();
            values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            if values.iter().any(|value| !value.is_finite()) {
                return Err(damaged(format!("{name:?} has a number that is not finite")));
            }
            each(&values);
        }
        Ok(())
    }
}
