//! Opens CUDA's libraries where they lie, and gives them to the trampolines that candle and taper call.

use std::error::Error;
use std::ffi::{CStr, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use super::places::{Place, Searched};
use super::{FoundLibrary, Libraries, MissingLibrary};

/// (major, minor)
type CudaVersion = (u32, u32);

/// (major, minor, patch) of a library.
type Version = (u32, u32, u32);

/// Libraries that come together: those of one folder serve, or none of them.
struct Family {
    members: &'static [Member],
    /// Numbers behind `.so.` in the names of the files, in the order in which they are looked for.
    numbers: &'static [u32],
    needs: Needs,
}

/// Source of the CUDA version that a library needs of the driver. A driver serves libraries of its own major version,
/// whichever the minor one (NVIDIA's "CUDA Compatibility").
enum Needs {
    /// The file's number is CUDA's major version.
    OfNumber,
    /// The number is the same for all, so that the library has to be opened and asked.
    OfVersion(fn(Version) -> CudaVersion),
}

struct Member {
    name: &'static str,
    /// `cublasLt` of `libcublasLt.so.13`.
    stem: &'static str,
    imports: fn() -> *mut Imports,
    version: fn(&Handle) -> Option<(Version, *const c_void)>,
}

/// `struct taper_cuda_library` of build/cuda_imports/imports.h.
#[repr(C)]
struct Imports {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    static mut taper_cuda_library_cublas: Imports;
    static mut taper_cuda_library_cublasLt: Imports;
    static mut taper_cuda_library_curand: Imports;
    fn taper_cuda_serve(library: *mut Imports, handle: *mut c_void);
}

const FAMILIES: [Family; 2] = [
    Family {
        // The second one needs the first, and takes the one that is open.
        members: &[
            Member {
                name: "cuBLASLt",
                stem: "cublasLt",
                imports: || &raw mut taper_cuda_library_cublasLt,
                version: blas_lt_version,
            },
            Member {
                name: "cuBLAS",
                stem: "cublas",
                imports: || &raw mut taper_cuda_library_cublas,
                version: blas_version,
            },
        ],
        numbers: &[13, 12],
        needs: Needs::OfNumber,
    },
    Family {
        members: &[Member {
            name: "cuRAND",
            stem: "curand",
            imports: || &raw mut taper_cuda_library_curand,
            version: rand_version,
        }],
        numbers: &[10],
        // 10.3 is CUDA 12's, 10.4 is CUDA 13's.
        needs: Needs::OfVersion(|(_, minor, _)| if minor < 4 { (12, 0) } else { (13, 0) }),
    },
];

/// Finds and opens the libraries that a run needs, for a driver that supports `driver`. The first folder that has some
/// gives the newest that the driver serves.
///
/// The search runs once per process, which has one driver; later calls return its result. It must come before any call
/// that would open other files of these libraries.
pub fn load(driver: CudaVersion) -> &'static Libraries {
    static LOADED: OnceLock<Libraries> = OnceLock::new();
    LOADED.get_or_init(|| search(driver))
}

fn search(driver: CudaVersion) -> Libraries {
    let mut report = Libraries::default();
    let mut places: Vec<Searched> = Vec::new();
    for family in &FAMILIES {
        let opened = (0..Place::ALL.len()).find_map(|index| {
            // Asking Python takes some hundredths of a second: it is asked only when its turn comes, and once.
            if places.len() == index {
                places.push(Place::ALL[index].search());
            }
            family.find(&places[index], driver, &mut report.passed_over)
        });
        match opened {
            Some(opened) => report.found.extend(opened.into_iter().map(Opened::serve)),
            None => report.missing.extend(family.members.iter().map(|member| {
                MissingLibrary {
                    name: member.name,
                    files: family
                        .numbers
                        .iter()
                        .map(|number| member.file(*number))
                        .collect(),
                }
            })),
        }
    }
    report.looked_in = places.into_iter().map(|place| place.name).collect();
    report
}

/// Reason that a file does not serve; `None` if there is no such file.
type PassedOver = Option<String>;

impl Family {
    /// All members from one folder of a place.
    fn find(
        &self,
        place: &Searched,
        driver: CudaVersion,
        passed_over: &mut Vec<String>,
    ) -> Option<Vec<Opened>> {
        let by_name = [PathBuf::new()];
        let folders = place.folders.as_deref().unwrap_or(&by_name);
        folders.iter().find_map(|folder| {
            self.numbers.iter().find_map(|number| {
                let opened = self.open(folder, *number, driver);
                opened.map_err(|reason| passed_over.extend(reason)).ok()
            })
        })
    }

    /// All members of one number; `folder` is empty where the loader knows the folders.
    fn open(
        &self,
        folder: &Path,
        number: u32,
        driver: CudaVersion,
    ) -> Result<Vec<Opened>, PassedOver> {
        let file = |member: &Member| folder.join(member.file(number));
        let by_name = folder.as_os_str().is_empty();
        let there = if by_name {
            format!(
                "`{}`, not looked for on ld.so's path,",
                self.members[0].file(number)
            )
        } else {
            format!("`{}`", self.all_there(file)?)
        };
        if let Needs::OfNumber = self.needs {
            enough(driver, (number, 0), &there)?;
        }
        // By name the last one is opened first: it brings the others, or fails as a whole.
        let mut members: Vec<&Member> = self.members.iter().collect();
        if by_name {
            members.reverse();
        }
        let mut opened: Vec<Opened> = Vec::new();
        for member in members {
            opened.push(Opened::new(member, &file(member), by_name)?);
        }
        let first = &opened[0];
        if let Needs::OfVersion(needs) = self.needs {
            let (file, version) = (first.file.display(), text(first.version));
            let there = format!("`{file}`, {} {version},", first.member.name);
            enough(driver, needs(first.version), &there)?;
        }
        match opened.iter().find(|other| !first.belongs_to(other)) {
            None => Ok(opened),
            Some(other) => Err(Some(format!(
                "`{}` and `{}` do not belong together",
                first.file.display(),
                other.file.display()
            ))),
        }
    }

    /// The first member's file, if every member has one.
    fn all_there(&self, file: impl Fn(&Member) -> PathBuf) -> Result<String, PassedOver> {
        let files = self.members.iter().map(file);
        let (there, absent): (Vec<_>, Vec<_>) = files.partition(|file| file.exists());
        match (there.first(), absent.first()) {
            (None, _) => Err(None),
            (Some(there), None) => Ok(there.display().to_string()),
            (Some(there), Some(absent)) => {
                let absent = absent.file_name().unwrap_or_default().to_string_lossy();
                Err(Some(format!(
                    "`{}` is there without `{absent}`",
                    there.display()
                )))
            }
        }
    }
}

/// Checks that the driver is new enough for the file in `there`.
fn enough(driver: CudaVersion, needed: CudaVersion, there: &str) -> Result<(), PassedOver> {
    if needed <= driver {
        return Ok(());
    }
    let (major, minor) = needed;
    Err(Some(format!(
        "{there} needs a driver for CUDA {major}.{minor}"
    )))
}

impl Member {
    fn file(&self, number: u32) -> String {
        format!("lib{}.so.{number}", self.stem)
    }
}

/// A library that is open. It is never closed, whether it serves or not: a library that has run code of its own may not
/// bear it.
struct Opened {
    member: &'static Member,
    handle: ManuallyDrop<Handle>,
    version: Version,
    file: PathBuf,
}

impl Opened {
    /// Opens the file at `path`; with `by_name` that is a bare name, which the loader looks for.
    fn new(member: &'static Member, path: &Path, by_name: bool) -> Result<Self, PassedOver> {
        let shown = path.display();
        // SAFETY: NVIDIA's libraries are made to be loaded at any time.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let handle = handle.map_err(|error| {
            // dlerror's words are the source's.
            let reason = error
                .source()
                .map_or(error.to_string(), ToString::to_string);
            // The loader says it of a file that it does not find, and of another one that this one needs.
            let absent = by_name && reason.starts_with(&*path.to_string_lossy());
            (!absent).then(|| format!("`{shown}` cannot be loaded: {reason}"))
        })?;
        let handle = ManuallyDrop::new(handle);
        let (version, address) = (member.version)(&handle)
            .ok_or_else(|| Some(format!("`{shown}` does not tell its version")))?;
        let found = if by_name { file_of(address) } else { None };
        Ok(Self {
            member,
            handle,
            version,
            file: found.unwrap_or_else(|| path.to_path_buf()),
        })
    }

    /// True if two members have one version, lie in one folder, and use the same cuBLASLt. The loader serves a
    /// library's needs by any file that is open under the name, wherever it lies.
    fn belongs_to(&self, other: &Opened) -> bool {
        let blas_lt = |opened: &Opened| blas_lt_version(&opened.handle).map(|(_, address)| address);
        let same = match (blas_lt(self), blas_lt(other)) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        same && self.version == other.version && self.file.parent() == other.file.parent()
    }

    /// Lets the trampolines call it from here on.
    fn serve(self) -> FoundLibrary {
        let handle = ManuallyDrop::into_inner(self.handle).into_raw();
        // SAFETY: a library's record, which bind.c guards itself, and a handle that nobody closes.
        unsafe { taper_cuda_serve((self.member.imports)(), handle) };
        FoundLibrary {
            name: self.member.name,
            version: text(self.version),
            file: self.file,
        }
    }
}

fn text(version: Version) -> String {
    let (major, minor, patch) = version;
    format!("{major}.{minor}.{patch}")
}

/// The file that an address belongs to, as the loader found it.
fn file_of(address: *const c_void) -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: writes to the variable, which may be all zeros.
    let info = unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a C string of the loader's that lives as long as the library is open.
    let file = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(file.to_str().ok()?.into())
}

/// Version and address of `cublasLtGetVersion`, whose `120103` is 12.1.3. The lookup covers the libraries that this one
/// needs, too.
fn blas_lt_version(handle: &Handle) -> Option<(Version, *const c_void)> {
    // SAFETY: `size_t cublasLtGetVersion(void)` of cublasLt.h.
    let get =
        unsafe { handle.get::<unsafe extern "C" fn() -> usize>(b"cublasLtGetVersion\0") }.ok()?;
    // SAFETY: it needs nothing, and no GPU.
    let number = u32::try_from(unsafe { get() }).ok()?;
    let version = (number / 10_000, number / 100 % 100, number % 100);
    Some((version, *get as *const c_void))
}

/// Version and address of `cublasGetProperty`, which returns one part of the version at a time.
fn blas_version(handle: &Handle) -> Option<(Version, *const c_void)> {
    type GetProperty = unsafe extern "C" fn(c_int, *mut c_int) -> c_int;
    // SAFETY: `cublasStatus_t cublasGetProperty(libraryPropertyType, int *)` of cublas_api.h.
    let get = unsafe { handle.get::<GetProperty>(b"cublasGetProperty\0") }.ok()?;
    let part = |property| {
        let mut value = 0;
        // SAFETY: the pointer is to a variable.
        let status = unsafe { get(property, &mut value) };
        u32::try_from(value).ok().filter(|_| status == 0)
    };
    // MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL of library_types.h.
    Some(((part(0)?, part(1)?, part(2)?), *get as *const c_void))
}

/// Version and address of `curandGetVersion`, whose `10302` is 10.3.2.
fn rand_version(handle: &Handle) -> Option<(Version, *const c_void)> {
    // SAFETY: `curandStatus_t curandGetVersion(int *)` of curand.h.
    let get =
        unsafe { handle.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"curandGetVersion\0") }
            .ok()?;
    let mut number = 0;
    // SAFETY: the pointer is to a variable.
    let status = unsafe { get(&mut number) };
    let number = u32::try_from(number).ok().filter(|_| status == 0)?;
    let version = (number / 1000, number / 100 % 10, number % 100);
    Some((version, *get as *const c_void))
}
