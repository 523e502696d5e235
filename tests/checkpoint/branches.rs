//! A run that goes back to an earlier checkpoint is another branch: which checkpoint is the newest, and which stay.

use std::path::{Path, PathBuf};

use taper::checkpoint::{Ancestor, Branch, Lineage, find_latest, open, prune};

use super::{Run, names_in, temp_dir, tiny};

/// Saves a checkpoint on the branch of `lineage`.
fn save_on(lineage: &Lineage, out: &Path, step: u64) -> PathBuf {
    let mut run = Run::at(tiny(true), step);
    run.extra_files.extend(lineage.file());
    run.save(out)
}

fn trunk(out: &Path, steps: &[u64]) {
    for &step in steps {
        save_on(&Lineage::default(), out, step);
    }
}

fn back_to(out: &Path, step: u64) -> Branch {
    let path = out.join(format!("ckpt-{step:08}"));
    open(&path).unwrap().checkpoint.branch_in(out, &[]).unwrap()
}

fn steps(branch: &Branch) -> Vec<u64> {
    branch.others.iter().map(|(step, _)| *step).collect()
}

fn ancestor(branch: u64, until_step: u64) -> Ancestor {
    Ancestor { branch, until_step }
}

#[test]
fn the_newest_checkpoint_stays_on_its_branch() {
    let out = temp_dir();
    trunk(out.path(), &[1, 2]);
    let branch = back_to(out.path(), 2);
    assert_eq!((branch.lineage, branch.leaves), (Lineage::default(), None));
    assert!(Lineage::default().file().is_none(), "as it always was");
}

#[test]
fn what_a_branch_saves_is_the_newest_whatever_its_step() {
    let out = temp_dir();
    trunk(out.path(), &[2, 4, 6]);
    let branch = back_to(out.path(), 2);
    assert_eq!(branch.leaves, Some(0));
    assert_eq!(branch.lineage.ancestors, [ancestor(0, 2)]);
    assert_eq!(steps(&branch), [4, 6]);
    save_on(&branch.lineage, out.path(), 3);
    let found = find_latest(out.path()).unwrap();
    assert_eq!(
        (found.checkpoint.state.step, &found.skipped[..]),
        (3, &[][..])
    );
    let on = found.checkpoint.branch_in(out.path(), &[]).unwrap();
    assert_eq!((&on.lineage, on.leaves), (&branch.lineage, None));
    assert_eq!(steps(&on), [4, 6]);
}

#[test]
fn going_back_and_forth_starts_a_branch_each_time() {
    let out = temp_dir();
    trunk(out.path(), &[2, 4, 6]);
    let first = back_to(out.path(), 2).lineage;
    save_on(&first, out.path(), 3);
    let second = back_to(out.path(), 6);
    assert_eq!(second.lineage.branch, 2);
    assert_eq!(second.lineage.ancestors, [ancestor(0, 6)]);
    assert!(second.others.is_empty());
    save_on(&second.lineage, out.path(), 8);
    let third = back_to(out.path(), 3);
    assert_eq!(third.lineage.branch, 3);
    assert_eq!(third.lineage.ancestors, [ancestor(0, 2), ancestor(1, 3)]);
    assert_eq!(steps(&third), [4, 6, 8]);
}

#[test]
fn pruning_counts_the_checkpoints_of_the_branch_alone() {
    let out = temp_dir();
    trunk(out.path(), &[1, 2, 3, 7, 8, 9]);
    let branch = back_to(out.path(), 3).lineage;
    for step in [4, 5] {
        save_on(&branch, out.path(), step);
        prune(out.path(), 2, Some(1)).unwrap();
    }
    // 2 and 3 are the branch's own past, 1 is its best.
    let expected = [1, 4, 5, 7, 8, 9].map(|step| format!("ckpt-{step:08}"));
    assert_eq!(names_in(out.path()), expected);
}

#[test]
fn a_checkpoint_of_another_folder_leaves_the_branches_here_alone() {
    let (out, elsewhere) = (temp_dir(), temp_dir());
    trunk(out.path(), &[1, 9]);
    trunk(elsewhere.path(), &[5]);
    let found = find_latest(elsewhere.path()).unwrap().checkpoint;
    let branch = found.branch_in(out.path(), &[]).unwrap();
    assert_eq!((branch.lineage.branch, branch.is_inside), (1, false));
    save_on(&branch.lineage, out.path(), 6);
    prune(out.path(), 1, None).unwrap();
    let expected = [1, 6, 9].map(|step| format!("ckpt-{step:08}"));
    assert_eq!(names_in(out.path()), expected);
    let empty = temp_dir();
    let alone = found.branch_in(empty.path(), &[]).unwrap();
    assert_eq!((alone.lineage, alone.leaves), (Lineage::default(), None));
}

#[test]
fn a_damaged_lineage_is_damage() {
    let out = temp_dir();
    trunk(out.path(), &[1, 5]);
    let path = save_on(&back_to(out.path(), 1).lineage, out.path(), 2);
    let file = path.join("lineage.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("1", "0")).unwrap();
    let found = find_latest(out.path()).unwrap();
    assert_eq!(found.checkpoint.state.step, 5);
    let damage = open(&path).unwrap_err().to_string();
    assert!(damage.contains("`lineage.json` does not match"), "{damage}");
}
