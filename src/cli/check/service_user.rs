//! Checks that the user of the service has the permissions to use the service's files. The other
//! checks find only files that the user who runs `check` cannot use. Root can read all files,
//! including those that the service cannot read. Therefore this module's checks run only if root
//! runs `check`.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::fault::Fault;

/// Returns a fault for each file that the user of the service cannot use. This user is assumed to
/// be the owner of the key directory. If the key directory does not exist or belongs to root, the
/// user is assumed to be the owner of the state directory. Returns no faults if `check` does not
/// run as root, or if root owns both directories.
pub(super) fn barred(config: &Config, config_file: Option<&Path>) -> Vec<Fault> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let directories = [&config.live.keys, &config.startup.state].into_iter();
    let owners = directories.filter_map(|directory| fs::metadata(directory).ok());
    let Some(user) = owners.map(|owned| User::who_owns(&owned)).find(|user| user.id != 0) else {
        return Vec::new();
    };
    let mut needs: Vec<(PathBuf, u32)> = Vec::new();
    needs.extend(config_file.map(|file| (file.to_owned(), READ)));
    needs.push((config.live.clients.clone(), READ));
    needs.extend(config.live.admin_token_file.clone().map(|file| (file, READ)));
    needs.extend(config.startup.audit.clone().map(|file| (file, WRITE)));
    needs.push((config.live.keys.clone(), READ | SEARCH));
    needs.extend(visible_files(&config.live.keys).into_iter().map(|file| (file, READ)));
    needs.push((config.startup.state.clone(), READ | WRITE | SEARCH));
    needs.extend(visible_files(&config.startup.state).into_iter().map(|file| (file, READ | WRITE)));
    needs.iter().filter_map(|(path, need)| user.barred_from(path, *need)).collect()
}

/// Returns the files in `directory` that are neither hidden nor retired keys.
fn visible_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_none_or(|extension| extension != "retired"))
        .collect();
    files.sort_unstable();
    files
}

struct User {
    id: u32,
    /// The group of the directory that the user owns.
    group: u32,
    groups: HashSet<u32>,
}

impl User {
    fn who_owns(directory: &Metadata) -> Self {
        let (id, group) = (directory.uid(), directory.gid());
        let [users, groups] =
            ["/etc/passwd", "/etc/group"].map(|file| fs::read_to_string(file).unwrap_or_default());
        Self { id, group, groups: groups_of(id, &users, &groups).chain([group]).collect() }
    }

    /// Returns a fault if the user cannot use `path` because of the permissions of `path` or of a
    /// directory above it.
    fn barred_from(&self, path: &Path, need: u32) -> Option<Fault> {
        // Other checks report a missing file.
        let real = fs::canonicalize(path).ok()?;
        let barrier = real.ancestors().find(|part| {
            let need = if *part == real { need } else { SEARCH };
            fs::metadata(part).is_ok_and(|metadata| !self.may(need, &metadata))
        })?;
        let verb = if need & WRITE == 0 { "read" } else { "used" };
        let because = (barrier != real).then(|| format!(" because of {}", barrier.display()));
        let because = because.unwrap_or_default();
        let Self { id, group, .. } = self;
        let problem = format!(
            "cannot be {verb} by the user {id}{because}; this user owns the directory of keys or \
             state, so it should run the service: run chown {id}:{group} on it, or change its \
             group or mode"
        );
        Some(Fault::new(path, problem))
    }

    /// Whether the user has the permissions `need`. The classes of users are owner, group and
    /// others. As in the kernel, only the permissions of the first class that includes the user
    /// count.
    fn may(&self, need: u32, metadata: &Metadata) -> bool {
        let shift = if metadata.uid() == self.id {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() >> shift & need == need
    }
}

/// Returns the ids of the groups of the user `id`. `users` is the text of `/etc/passwd`, and
/// `groups` is the text of `/etc/group`.
fn groups_of(id: u32, users: &str, groups: &str) -> impl Iterator<Item = u32> {
    fn fields(line: &str) -> Vec<&str> {
        line.split(':').collect()
    }
    let number = |text: &str| text.parse::<u32>().ok();
    let user = users.lines().map(fields).find(|user| user.len() > 3 && number(user[2]) == Some(id));
    let primary = user.as_ref().and_then(|user| number(user[3]));
    let name = user.map(|user| user[0].to_owned());
    let is_member =
        move |members: &str| members.split(',').any(|member| Some(member) == name.as_deref());
    let others: Vec<_> = groups
        .lines()
        .map(fields)
        .filter(|group| group.len() > 3 && is_member(group[3]))
        .filter_map(|group| number(group[2]))
        .collect();
    primary.into_iter().chain(others)
}

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_in_its_primary_group_and_in_those_that_list_it() {
        let users = "root:x:0:0::/root:/bin/sh\ngrantd:x:998:997::/:/bin/false\nshort:x:5\n";
        let groups = "root:x:0:\nproxy:x:13:www,grantd\nssl:x:14:grantd2\nbad\n";
        let of = |id| groups_of(id, users, groups).collect::<Vec<_>>();
        assert_eq!(of(998), [997, 13]);
        assert_eq!(of(0), [0]);
        assert_eq!(of(5), [] as [u32; 0]);
        assert_eq!(of(4711), [] as [u32; 0]);
    }
}
