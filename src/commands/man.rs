//! `taper man`: manual pages, as roff.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use crate::commands::{path_argument, print_now, until_reader_leaves};
use crate::error::{Error, Result};

/// Print taper's manual page, or write one for each verb
///
/// `taper man | man -l -` shows it. With `--out ~/.local/share/man/man1`, `man taper-train` finds the page of `train`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// A folder for a page of each verb; taper's own pages in it are replaced
    #[arg(long, value_name = "FOLDER", value_parser = path_argument())]
    pub out: Option<PathBuf>,
}

/// A manual page and the name of its file.
struct Page {
    name: String,
    roff: Vec<u8>,
}

/// `cli`: every verb and flag.
pub fn run(args: ManArgs, cli: Command) -> Result<()> {
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    match &args.out {
        None => {
            let page = page(cli)?;
            until_reader_leaves(print_now(&String::from_utf8_lossy(&page.roff)))
        }
        Some(folder) => {
            let mut pages = Vec::new();
            collect(cli, &mut pages)?;
            write(folder, &pages)?;
            until_reader_leaves(print_now(&format!("{}\n", folder.display())))
        }
    }
}

fn page(command: Command) -> Result<Page> {
    let man = Man::new(command).source(concat!("taper ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    // Memory takes every byte.
    man.render(&mut roff)
        .map_err(Error::io("write", Path::new("a manual page")))?;
    Ok(Page {
        name: man.get_filename(),
        roff,
    })
}

/// Adds the pages of a command and of its verbs.
fn collect(command: Command, pages: &mut Vec<Page>) -> Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect(verb.clone(), pages)?;
    }
    pages.push(page(command)?);
    Ok(())
}

/// Writes all pages, or none if a file of another program has the name of one.
fn write(folder: &Path, pages: &[Page]) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    for page in pages {
        let path = folder.join(&page.name);
        if !is_ours(&path).map_err(Error::io("read", &path))? {
            return Err(Error::Usage {
                what: format!(
                    "`{}` is there and is no manual page of taper's",
                    path.display()
                ),
                hint: "name another folder, or move that file away".into(),
            });
        }
    }
    for page in pages {
        let path = folder.join(&page.name);
        replace(&path, &page.roff).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Most bytes of a file that are looked at for the mark of our pages.
const HEAD_BYTES: usize = 1024;

/// Whether a path is free, or has a page that `taper man` wrote.
fn is_ours(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(HEAD_BYTES as u64).read_to_end(&mut head)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let head = String::from_utf8_lossy(&head);
    Ok(head.lines().any(|line| line.starts_with(".TH taper")))
}

/// Writes a file aside and renames it into place.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}
