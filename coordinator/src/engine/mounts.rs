//! The rules of the mount table.

use millpond_proto::{Mount, MountId, MountPath};

use super::command::{MountChange, NewMount};
use super::outcome::{Effect, Outcome, Refused};
use super::state::State;

impl State {
    pub(super) fn add_mount(
        &mut self,
        new: &NewMount,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        self.constants()?;
        let mount = Mount {
            id: MountId(self.next_mount),
            path: new.path.clone(),
            ufs: new.ufs.clone(),
            options: new.options.clone(),
        };
        self.mounts.add(mount.clone())?;
        self.next_mount += 1;
        effects.push(Effect::Settings);
        Ok(Outcome::Mount(mount))
    }

    pub(super) fn update_mount(
        &mut self,
        change: &MountChange,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let Some(mount) = self.mounts.at(&change.path) else {
            // The table knows how to say which paths there are.
            self.mounts.update(&change.path, change.set.clone())?;
            return Ok(Outcome::Done);
        };
        let mut changed = mount.clone();
        for option in &change.unset {
            if changed.options.remove(option).is_none() {
                return Err(Refused::OptionNotSet {
                    path: change.path.to_string(),
                    option: option.clone(),
                });
            }
        }
        let set = change.set.iter().map(|(k, v)| (k.clone(), v.clone()));
        changed.options.extend(set);
        if changed != *mount {
            self.mounts.update(&change.path, changed.options.clone())?;
            effects.push(Effect::Settings);
        }
        Ok(Outcome::Mount(changed))
    }

    pub(super) fn remove_mount(
        &mut self,
        path: &MountPath,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let mount = self.mounts.remove(path)?;
        effects.push(Effect::Settings);
        Ok(Outcome::Mount(mount))
    }
}
