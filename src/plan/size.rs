//! How sizes look where they are compared: a budget of 2.68 GiB must not read as one of 2.7 GiB.

use crate::units;

const GIB: u64 = 1 << 30;

/// 2877628088 -> `2.68 GiB`, as people type it and as PyTorch's messages have it; less than 1 GiB as
/// everywhere else.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..GIB => units::bytes(bytes),
        _ => format!("{:.2} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_that_differ_by_one_hundredth_of_a_gib_read_differently() {
        let cases = [
            (2_877_628_088, "2.68 GiB"),
            (2_888_365_506, "2.69 GiB"),
            (1 << 30, "1.00 GiB"),
            (300 << 30, "300.00 GiB"),
            (507 << 20, "507.0 MiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }
}
