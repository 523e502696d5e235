//! The transpose of a matrix that is read or written a block of rows at a time.

use std::ops::Range;

use crate::ops::backend::CHUNK;

/// Ranges of whole rows, about a chunk of values each.
pub(in crate::checkpoint) fn row_blocks(
    rows: usize,
    cols: usize,
) -> impl Iterator<Item = Range<usize>> {
    let step = (CHUNK / cols.max(1)).max(1);
    (0..rows)
        .step_by(step)
        .map(move |start| start..(start + step).min(rows))
}

/// Sets `to[c][r] = from[r][c]` for r < rows, c < cols; a stride is the distance between two rows.
pub(in crate::checkpoint) fn transpose(
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
    [rows, cols]: [usize; 2],
) {
    // Eight lines of `to` stay in the cache while `from` is read once, line by line.
    const TILE: usize = 8;
    for tile in (0..cols).step_by(TILE) {
        let tile = tile..(tile + TILE).min(cols);
        for row in 0..rows {
            let line = &from[row * from_stride..][tile.clone()];
            for (col, &x) in tile.clone().zip(line) {
                to[col * to_stride + row] = x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_reaches_every_element_whatever_the_tile() {
        for [rows, cols] in [[1, 1], [1, 9], [8, 8], [17, 7], [5, 24]] {
            let (from_stride, to_stride) = (cols + 2, rows + 3);
            let from: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
            let mut to = vec![-1.0; cols * to_stride];
            transpose(&from, from_stride, &mut to, to_stride, [rows, cols]);
            for (at, &x) in to.iter().enumerate() {
                let (col, row) = (at / to_stride, at % to_stride);
                let expected = if row < rows {
                    from[row * from_stride + col]
                } else {
                    -1.0
                };
                assert_eq!(x, expected);
            }
        }
    }
}
