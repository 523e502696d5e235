//! The settings of Hugging Face's tools, from the environment.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::exchange::agent;
use super::{HubError, Retries};
use crate::terms::{FileError, expand_home};

const ENDPOINT: &str = "https://huggingface.co";

/// Reads a variable; an empty one counts as none.
type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder of the cache, from `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` or the home
/// folder, in this order.
pub fn cache_folder() -> PathBuf {
    cache_of(&variable)
}

fn cache_of(variable: Variables) -> PathBuf {
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .map_or_else(|| home(variable).join("hub"), expand_home)
}

/// `HF_HOME`, the folder of the token and the cache.
fn home(variable: Variables) -> PathBuf {
    if let Some(home) = variable("HF_HOME") {
        return expand_home(home);
    }
    let caches = variable("XDG_CACHE_HOME").map(expand_home);
    let caches = caches.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache"));
    caches.join("huggingface")
}

/// The hub as this process reaches it.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Without a slash at its end.
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
    pub(super) retries: Retries,
    pub(super) agent: ureq::Agent,
    /// Whether any server has answered.
    pub(super) reached: Arc<AtomicBool>,
}

impl Hub {
    /// Reads `HF_ENDPOINT`, the cache's folder ([`cache_folder`]), `HF_TOKEN`, `HF_TOKEN_PATH` with its file (else
    /// `HF_HOME/token`), `HF_HUB_DISABLE_IMPLICIT_TOKEN` and `HF_HUB_OFFLINE`. Call it once, where a download may begin.
    ///
    /// # Errors
    /// `Setting` for a value that cannot be, `File` when the token's file cannot be read.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::of(&variable)
    }

    fn of(variable: Variables) -> Result<Self, HubError> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let mut hub = Self::at(&endpoint.to_string_lossy(), cache_of(variable))?;
        hub.offline = is_true(variable("HF_HUB_OFFLINE"));
        if !is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
            hub.token = token(variable)?;
        }
        Ok(hub)
    }

    /// The hub at an address such as `https://huggingface.co`, without a token.
    ///
    /// # Errors
    /// `Setting` for another kind of address.
    pub fn at(endpoint: &str, cache: PathBuf) -> Result<Self, HubError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let has_host = ["https://", "http://"]
            .iter()
            .any(|scheme| matches!(endpoint.strip_prefix(scheme), Some(host) if !host.is_empty()));
        if !has_host || endpoint.parse::<ureq::http::Uri>().is_err() {
            return Err(HubError::Setting {
                name: "HF_ENDPOINT",
                found: format!("`{endpoint}`"),
                expected: "an address such as `https://huggingface.co`",
            });
        }
        Ok(Self {
            endpoint,
            cache,
            token: None,
            offline: false,
            retries: Retries::default(),
            agent: agent(),
            reached: Arc::default(),
        })
    }

    /// The same with other pauses between tries.
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// The same with a token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The same without a network.
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether `HF_HUB_OFFLINE` forbids every request.
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// Reads a switch as huggingface_hub does.
fn is_true(value: Option<OsString>) -> bool {
    let value = value.unwrap_or_default().to_string_lossy().to_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

fn token(variable: Variables) -> Result<Option<String>, HubError> {
    let given = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
    if let Some(given) = given {
        return cleaned(&given.to_string_lossy(), "HF_TOKEN");
    }
    let path = variable("HF_TOKEN_PATH").map(expand_home);
    let path = path.unwrap_or_else(|| home(variable).join("token"));
    match fs::read_to_string(&path) {
        Ok(text) => cleaned(&text, "HF_TOKEN_PATH"),
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(FileError::at("read the token in", &path)(error).into()),
    }
}

/// A token without the space around it. One that no header can carry is refused, and not shown.
fn cleaned(token: &str, name: &'static str) -> Result<Option<String>, HubError> {
    let token = token.trim();
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HubError::Setting {
            name,
            found: "text with spaces or other characters that no token has".into(),
            expected: "a token of the form `hf_...`",
        });
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Result<Hub, HubError> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Hub::of(&|name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn the_cache_is_where_hugging_faces_tools_have_it() {
        let cache = |variables: &[(&str, &str)]| hub(variables).unwrap().cache;
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
        ];
        let expected = ["/a", "/b", "/c/hub", "/d/huggingface/hub"];
        for (from, expected) in expected.iter().enumerate() {
            assert_eq!(cache(&all[from..]), Path::new(expected));
        }
        let home = env::home_dir().unwrap();
        assert_eq!(cache(&[]), home.join(".cache/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/x")]), home.join("x/hub"));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_its_file_and_can_be_forbidden() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let other = folder.path().join("other");
        fs::write(&other, " hf_other ").unwrap();
        let other = other.to_str().unwrap();
        let token = |variables: &[(&str, &str)]| hub(variables).unwrap().token;
        let home = ("HF_HOME", home);
        assert_eq!(token(&[home]).as_deref(), Some("hf_file"));
        let elsewhere = ("HF_TOKEN_PATH", other);
        assert_eq!(token(&[home, elsewhere]).as_deref(), Some("hf_other"));
        let given = ("HF_TOKEN", "hf_given");
        assert_eq!(
            token(&[home, elsewhere, given]).as_deref(),
            Some("hf_given")
        );
        let forbidden = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(token(&[home, given, forbidden]), None);
        let absent = ("HF_TOKEN_PATH", "/nowhere/token");
        assert_eq!(token(&[absent]), None);
        let error = hub(&[("HF_TOKEN", "hf_a\nb")]).unwrap_err().to_string();
        assert!(
            error.contains("HF_TOKEN") && !error.contains("hf_a"),
            "{error}"
        );
    }

    #[test]
    fn offline_is_a_switch_and_an_endpoint_an_address() {
        for (value, expected) in [("1", true), ("yes", true), ("True", true), ("0", false)] {
            let hub = hub(&[("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(hub.is_offline(), expected, "{value}");
        }
        let hub_at = |endpoint| hub(&[("HF_ENDPOINT", endpoint)]);
        assert_eq!(hub_at("http://a:1/b/").unwrap().endpoint, "http://a:1/b");
        for other in ["huggingface.co", "ftp://a", "https://", "https://a b"] {
            assert!(hub_at(other).is_err(), "{other}");
        }
    }
}
