//! The objects of a pickle.
//!
//! They lie in one list and refer to one another by their numbers. So a reference costs the same whatever it refers to,
//! an object may hold itself, and nothing is copied, dropped or followed by recursion.

use std::rc::Rc;

use safetensors::Dtype;

/// Number of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in the order in which they were set.
    Dict(Vec<(Id, Id)>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// A class or a function, as `module.name`.
    Name(Rc<str>),
    /// An object of another class, by that class's name.
    Other(Rc<str>),
}

/// A run of elements that tensors refer to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Name of its entry, below `data/`.
    pub(super) key: Rc<str>,
    /// `None` for a type that taper does not know.
    pub(super) dtype: Option<Dtype>,
    pub(super) elements: u64,
}

/// A tensor, as a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: Id,
    /// Number of the first element in the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Distances of neighbours in each dimension, in elements.
    pub(super) strides: Vec<u64>,
}

/// All objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) objects: Vec<Object>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn root(&self) -> View<'_> {
        self.view(self.root)
    }

    fn view(&self, id: Id) -> View<'_> {
        View {
            pickle: self,
            object: &self.objects[id.0 as usize],
        }
    }
}

/// An object, and those that it refers to.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) struct View<'a> {
    pickle: &'a Pickle,
    object: &'a Object,
}

impl<'a> View<'a> {
    /// The last value under a text.
    pub(in crate::checkpoint) fn get(self, key: &str) -> Option<View<'a>> {
        let mut items = self.items().rev();
        Some(items.find(|(found, _)| found.text() == Some(key))?.1)
    }

    /// The last value under a number.
    pub(in crate::checkpoint) fn get_number(self, key: i64) -> Option<View<'a>> {
        let mut items = self.items().rev();
        Some(items.find(|(found, _)| found.int() == Some(key))?.1)
    }

    /// Keys and values of a dictionary; none of another object.
    pub(in crate::checkpoint) fn items(
        self,
    ) -> impl DoubleEndedIterator<Item = (View<'a>, View<'a>)> + 'a {
        let items: &[(Id, Id)] = match self.object {
            Object::Dict(items) => items,
            _ => &[],
        };
        let View { pickle, .. } = self;
        items
            .iter()
            .map(move |&(key, value)| (pickle.view(key), pickle.view(value)))
    }

    /// The items of a list or tuple; none of another object.
    pub(in crate::checkpoint) fn list(self) -> impl ExactSizeIterator<Item = View<'a>> + 'a {
        let items: &[Id] = match self.object {
            Object::List(items) | Object::Tuple(items) => items,
            _ => &[],
        };
        let View { pickle, .. } = self;
        items.iter().map(move |&id| pickle.view(id))
    }

    pub(in crate::checkpoint) fn is_dict(self) -> bool {
        matches!(self.object, Object::Dict(_))
    }

    pub(in crate::checkpoint) fn text(self) -> Option<&'a str> {
        match self.object {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(in crate::checkpoint) fn int(self) -> Option<i64> {
        match self.object {
            Object::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(in crate::checkpoint) fn bool(self) -> Option<bool> {
        match self.object {
            Object::Bool(switch) => Some(*switch),
            _ => None,
        }
    }

    /// A number, whole or not.
    pub(in crate::checkpoint) fn float(self) -> Option<f64> {
        match self.object {
            Object::Float(number) => Some(*number),
            Object::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub(super) fn tensor(self) -> Option<(&'a Tensor, &'a Storage)> {
        let Object::Tensor(tensor) = self.object else {
            return None;
        };
        match &self.pickle.objects[tensor.storage.0 as usize] {
            Object::Storage(storage) => Some((tensor, storage)),
            _ => None,
        }
    }

    pub(in crate::checkpoint) fn is_tensor(self) -> bool {
        matches!(self.object, Object::Tensor(_))
    }

    /// The kind of the object, as a message says it.
    pub(in crate::checkpoint) fn kind(self) -> String {
        match self.object {
            Object::None => "None".into(),
            Object::Bool(switch) => if *switch { "True" } else { "False" }.into(),
            Object::Int(number) => number.to_string(),
            Object::Float(number) => number.to_string(),
            Object::Text(_) => "text".into(),
            Object::Tuple(_) => "a tuple".into(),
            Object::List(_) => "a list".into(),
            Object::Dict(_) => "a dictionary".into(),
            Object::Storage(_) => "a storage".into(),
            Object::Tensor(_) => "a tensor".into(),
            Object::Name(name) => format!("`{name}`"),
            Object::Other(class) => format!("an object of `{class}`"),
        }
    }
}
