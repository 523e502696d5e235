//! Dropout masks: functions of seed, step, sample and site alone.

use taper::ops::backend::DropoutSite;
use taper::ops::cpu::dropout::{self, Dropout, SiteDropout, factors};

use crate::DROPOUT;
use crate::common::noise;

#[test]
fn dropout_keeps_the_asked_for_fraction_and_scales_it() {
    let mask = factors::<f64>(DROPOUT, DropoutSite::Embedding, 0, 100, 1000);
    let kept = mask.iter().filter(|&&x| x > 0.0).count() as f64 / mask.len() as f64;
    assert!((kept - 0.7).abs() < 0.005, "kept {kept}");
    assert!(
        mask.iter()
            .all(|&x| x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-12)
    );
}

#[test]
fn dropout_of_a_sequence_does_not_depend_on_its_place_in_the_micro_batch() {
    let (t, c) = (6, 130);
    let branch = noise::<f32>(4 * t * c, 1);
    let x = vec![0f32; 4 * t * c];
    let run = |first: usize, count: usize| {
        let range = first * t * c..(first + count) * t * c;
        let mut out = vec![0f32; count * t * c];
        let dropout = Dropout {
            first_sample: first as u32,
            ..DROPOUT
        };
        let dropout = SiteDropout {
            dropout,
            site: DropoutSite::MlpOutput { layer: 1 },
        };
        let (x, branch) = (&x[range.clone()], &branch[range]);
        dropout::residual_forward(x, branch, &mut out, c, t, Some(dropout));
        out
    };
    let whole = run(0, 4);
    let halves = [run(0, 2), run(2, 2)].concat();
    assert_eq!(whole, halves);
    let other_step = Dropout { step: 5, ..DROPOUT };
    let site = DropoutSite::MlpOutput { layer: 1 };
    assert_ne!(
        factors::<f32>(DROPOUT, site, 0, t, c),
        factors::<f32>(other_step, site, 0, t, c)
    );
}

#[test]
fn rows_of_a_mask_and_sites_never_share_random_numbers() {
    let t = 61;
    let site = |head| DropoutSite::Attention { layer: 0, head };
    let rows = factors::<f32>(DROPOUT, site(0), 0, t, t);
    let mut seen: Vec<&[f32]> = rows.chunks_exact(t).collect();
    let other = factors::<f32>(DROPOUT, site(1), 0, t, t);
    seen.extend(other.chunks_exact(t));
    for (i, a) in seen.iter().enumerate() {
        assert!(seen[..i].iter().all(|b| b != a), "row {i} repeats another");
    }
}
