//! Directions of vectors: their mean, and one that lies between two of them. Pure.

/// The mean of the directions of vectors, with length 1; that of one vector is itself. None without a vector, or where
/// they cancel out.
pub fn mean(vectors: &[Vec<f32>]) -> Option<Vec<f32>> {
    if let [vector] = vectors {
        return Some(vector.clone());
    }
    sum(vectors.iter().map(|vector| (vector, 1.0)))
}

/// The direction of a vector, moved towards that of another one: by 0 not at all, by 1 to the middle.
pub fn moved(vector: &[f32], towards: &[f32], by: f64) -> Option<Vec<f32>> {
    sum([(vector, 1.0), (towards, by)].into_iter())
}

/// The direction of the sum of the directions of vectors, each with a weight.
fn sum<V: AsRef<[f32]>>(vectors: impl Iterator<Item = (V, f64)>) -> Option<Vec<f32>> {
    let mut sum: Vec<f64> = Vec::new();
    for (vector, weight) in vectors {
        let vector = vector.as_ref();
        sum.resize(vector.len(), 0.0);
        let length = length(vector.iter().map(|element| f64::from(*element)));
        if length > 0.0 {
            for (sum, element) in sum.iter_mut().zip(vector) {
                *sum += weight * f64::from(*element) / length;
            }
        }
    }
    let length = length(sum.iter().copied());
    (length > 1e-9).then(|| sum.iter().map(|element| (element / length) as f32).collect())
}

fn length(elements: impl Iterator<Item = f64>) -> f64 {
    elements.map(|element| element * element).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_one_of_directions() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[vec![3.0, 4.0]]), Some(vec![3.0, 4.0]));
        let diagonal = mean(&[vec![10.0, 0.0], vec![0.0, 0.1]]).unwrap();
        assert!(diagonal.iter().all(|element| (element - 0.5_f32.sqrt()).abs() < 1e-6));
        assert_eq!(mean(&[vec![1.0, 0.0], vec![-2.0, 0.0]]), None);
        assert_eq!(mean(&[vec![0.0, 0.0], vec![0.0, 2.0]]), Some(vec![0.0, 1.0]));
    }

    #[test]
    fn a_vector_moves_towards_another_one() {
        let (vector, other) = ([5.0, 0.0], [0.0, 0.2]);
        assert_eq!(moved(&vector, &other, 0.0), Some(vec![1.0, 0.0]));
        let near = moved(&vector, &other, 0.75).unwrap();
        assert!((near[0] - 0.8).abs() < 1e-6 && (near[1] - 0.6).abs() < 1e-6, "{near:?}");
        assert_eq!(moved(&vector, &[-1.0, 0.0], 1.0), None);
        assert_eq!(moved(&vector, &[0.0, 0.0], 1.0), Some(vec![1.0, 0.0]));
    }
}
