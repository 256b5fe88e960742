//! Command in, exact state and effects out.

use std::collections::BTreeMap;

use millpond_proto::{BlockSize, ClusterId, Epoch, ErrorKind, MemberState, MountPath, NodeId};
use proptest::prelude::*;

use super::command::Identity;
use super::members::MAX_MEMBERS;
use super::*;

const OURS: ClusterId = ClusterId([1; 16]);
const OTHER: ClusterId = ClusterId([2; 16]);

fn bootstrapped() -> State {
    let mut state = State::default();
    let applied = apply(
        &mut state,
        Op::Bootstrap {
            cluster: OURS,
            block_size: BlockSize::DEFAULT,
        },
    );
    assert_eq!(applied.effects, [Effect::Settings]);
    state
}

fn apply(state: &mut State, op: Op) -> Applied {
    state.apply(&Command::new(op))
}

/// Applies what must be refused, and checks that nothing changed.
fn refused(state: &mut State, op: Op) -> Refused {
    let before = state.clone();
    let applied = apply(state, op);
    assert_eq!(*state, before, "a refused command changes nothing");
    assert_eq!(applied.effects, []);
    applied.result.unwrap_err()
}

fn first_join(data_dir: &str, incarnation: u64) -> Join {
    Join {
        identity: None,
        data_dir: data_dir.into(),
        incarnation,
        addr: "10.0.0.1:7100".into(),
        admin: String::new(),
        zone: String::new(),
        weight: 100,
        capacity: 1 << 30,
    }
}

fn rejoin(node: u64, data_dir: &str, incarnation: u64) -> Join {
    let identity = Some(Identity {
        cluster: OURS,
        node: NodeId(node),
    });
    Join {
        identity,
        ..first_join(data_dir, incarnation)
    }
}

fn joined(state: &mut State, join: Join) -> NodeId {
    match apply(state, Op::Join(join)).result {
        Ok(Outcome::Joined(node)) => node,
        other => panic!("not joined: {other:?}"),
    }
}

fn activate(state: &mut State, node: NodeId, incarnation: u64) -> Applied {
    apply(state, Op::Activate { node, incarnation })
}

/// A bootstrapped state with one active node of incarnation 10.
fn with_active_node() -> (State, NodeId) {
    let mut state = bootstrapped();
    let node = joined(&mut state, first_join("aa", 10));
    activate(&mut state, node, 10).result.unwrap();
    (state, node)
}

fn state_of(state: &State, node: NodeId) -> MemberState {
    state.view().unwrap().member(node).unwrap().state
}

fn epoch(state: &State) -> u64 {
    state.view().unwrap().epoch.0
}

#[test]
fn the_first_bootstrap_counts() {
    let mut state = bootstrapped();
    let before = state.clone();
    let again = Op::Bootstrap {
        cluster: OTHER,
        block_size: BlockSize::MIN,
    };
    assert_eq!(apply(&mut state, again), Applied::nothing());
    assert_eq!(state, before);
    assert!(State::default().view().is_none());
    let early = refused(&mut State::default(), Op::Join(first_join("aa", 1)));
    assert_eq!(early.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_first_join_gets_the_next_id_and_serves_only_when_it_has_shown_so() {
    let mut state = bootstrapped();
    let applied = apply(&mut state, Op::Join(first_join("aa", 10)));
    let node = NodeId(1);
    assert_eq!(applied.result, Ok(Outcome::Joined(node)));
    assert_eq!(
        applied.effects,
        [Effect::Member {
            node,
            from: None,
            to: MemberState::Joining,
            incarnation: 10
        }]
    );
    assert_eq!(epoch(&state), 0, "who does not serve moves no block");

    let applied = activate(&mut state, node, 10);
    assert_eq!(
        applied.effects,
        [
            Effect::Member {
                node,
                from: Some(MemberState::Joining),
                to: MemberState::Active,
                incarnation: 10
            },
            Effect::EpochAdvanced(Epoch(1)),
        ]
    );
    assert_eq!(activate(&mut state, node, 10), Applied::nothing());
    assert_eq!(joined(&mut state, first_join("bb", 10)), NodeId(2));
}

#[test]
fn a_retried_first_join_gets_the_same_id_and_changes_nothing() {
    let mut state = bootstrapped();
    let node = joined(&mut state, first_join("aa", 10));
    let before = state.clone();
    let retried = apply(&mut state, Op::Join(first_join("aa", 10)));
    assert_eq!(retried.result, Ok(Outcome::Joined(node)));
    assert_eq!(
        (retried.effects.as_slice(), &state),
        ([].as_slice(), &before)
    );
}

#[test]
fn a_quick_restart_moves_no_block() {
    let (mut state, node) = with_active_node();
    let applied = apply(&mut state, Op::Join(rejoin(1, "aa", 11)));
    assert_eq!(
        applied.effects,
        [
            Effect::Fenced {
                node,
                incarnation: 10
            },
            Effect::Member {
                node,
                from: Some(MemberState::Active),
                to: MemberState::Active,
                incarnation: 11
            },
        ]
    );
    assert_eq!(epoch(&state), 1);
}

#[test]
fn a_new_address_weight_or_zone_of_a_serving_node_advances_the_epoch() {
    let changes: [fn(&mut Join); 3] = [
        |j| j.addr = "10.0.0.9:7100".into(),
        |j| j.weight = 50,
        |j| j.zone = "b".into(),
    ];
    for change in changes {
        let (mut state, _) = with_active_node();
        let mut join = rejoin(1, "aa", 11);
        change(&mut join);
        let applied = apply(&mut state, Op::Join(join));
        assert_eq!(
            applied.effects.last(),
            Some(&Effect::EpochAdvanced(Epoch(2)))
        );
    }
    let (mut state, _) = with_active_node();
    let join = Join {
        capacity: 5,
        admin: "http://x:1".into(),
        ..rejoin(1, "aa", 11)
    };
    joined(&mut state, join);
    assert_eq!(
        epoch(&state),
        1,
        "capacity and admin address place no block"
    );
}

#[test]
fn the_earlier_of_two_processes_with_one_data_directory_is_fenced() {
    let (mut state, node) = with_active_node();
    joined(&mut state, rejoin(1, "aa", 20));
    let superseded = Refused::Superseded {
        node,
        incarnation: 10,
        current: 20,
    };
    assert_eq!(superseded.kind(), ErrorKind::Stale);
    assert!(
        superseded
            .to_string()
            .contains("another process uses the data directory")
    );
    let incarnation = 10;
    for op in [
        Op::Join(rejoin(1, "aa", 10)),
        Op::Join(first_join("aa", 10)),
        Op::Activate { node, incarnation },
        Op::Leave { node, incarnation },
    ] {
        assert_eq!(refused(&mut state, op), superseded);
    }
}

#[test]
fn a_silent_node_dies_and_comes_back_through_joining() {
    let (mut state, node) = with_active_node();
    let incarnation = 10;
    let applied = apply(&mut state, Op::MarkDead { node, incarnation });
    assert_eq!(
        applied.effects,
        [
            Effect::Member {
                node,
                from: Some(MemberState::Active),
                to: MemberState::Dead,
                incarnation
            },
            Effect::EpochAdvanced(Epoch(2)),
        ]
    );
    let dead = refused(&mut state, Op::Activate { node, incarnation });
    assert_eq!(dead.kind(), ErrorKind::Stale);

    // The same process was only cut off for a while.
    assert_eq!(joined(&mut state, rejoin(1, "aa", 10)), node);
    assert_eq!(state_of(&state, node), MemberState::Joining);
    assert_eq!(epoch(&state), 2);
    activate(&mut state, node, 10).result.unwrap();
    assert_eq!(epoch(&state), 3);
}

#[test]
fn a_death_that_was_decided_before_a_restart_does_not_hit_the_new_process() {
    let (mut state, node) = with_active_node();
    joined(&mut state, rejoin(1, "aa", 11));
    let late = Op::MarkDead {
        node,
        incarnation: 10,
    };
    assert_eq!(apply(&mut state, late), Applied::nothing());
    assert_eq!(state_of(&state, node), MemberState::Active);
    let unknown = Op::MarkDead {
        node: NodeId(77),
        incarnation: 10,
    };
    assert_eq!(apply(&mut state, unknown), Applied::nothing());
}

#[test]
fn a_node_leaves_once_and_may_come_back() {
    let (mut state, node) = with_active_node();
    let leave = Op::Leave {
        node,
        incarnation: 10,
    };
    apply(&mut state, leave.clone()).result.unwrap();
    assert_eq!(
        (state_of(&state, node), epoch(&state)),
        (MemberState::Left, 2)
    );
    assert_eq!(apply(&mut state, leave), Applied::nothing());
    assert_eq!(joined(&mut state, rejoin(1, "aa", 11)), node);
    assert_eq!(state_of(&state, node), MemberState::Joining);
    let stranger = Op::Leave {
        node: NodeId(9),
        incarnation: 1,
    };
    assert_eq!(refused(&mut state, stranger).kind(), ErrorKind::Stale);
}

#[test]
fn a_data_directory_of_another_cluster_is_named() {
    let (mut state, node) = with_active_node();
    let cluster = OTHER;
    let mut join = rejoin(1, "aa", 11);
    join.identity = Some(Identity { cluster, node });
    let error = refused(&mut state, Op::Join(join));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    let expected = format!("data directory belongs to cluster {OTHER}, this is {OURS}");
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn an_id_cannot_be_taken_from_another_data_directory_or_out_of_the_air() {
    let (mut state, node) = with_active_node();
    let stolen = refused(&mut state, Op::Join(rejoin(1, "bb", 11)));
    assert_eq!(stolen, Refused::OtherDataDir { node });
    let invented = refused(&mut state, Op::Join(rejoin(2, "bb", 11)));
    assert!(matches!(invented, Refused::NeverGiven { .. }), "{invented}");
    let zero = refused(&mut state, Op::Join(rejoin(0, "bb", 11)));
    assert!(matches!(zero, Refused::NeverGiven { .. }), "{zero}");
}

#[test]
fn the_longest_gone_member_makes_room_and_may_still_come_back() {
    let mut state = bootstrapped();
    for i in 0..MAX_MEMBERS {
        joined(&mut state, first_join(&format!("{i}"), 1));
    }
    let newcomer = || Op::Join(first_join("newcomer", 1));
    let limit = MAX_MEMBERS;
    assert_eq!(refused(&mut state, newcomer()), Refused::Full { limit });
    for node in [7, 5] {
        let node = NodeId(node);
        let leave = Op::Leave {
            node,
            incarnation: 1,
        };
        apply(&mut state, leave).result.unwrap();
    }
    let applied = apply(&mut state, newcomer());
    assert_eq!(applied.effects[0], Effect::Forgotten { node: NodeId(7) });
    let new = NodeId(MAX_MEMBERS as u64 + 1);
    assert_eq!(applied.result, Ok(Outcome::Joined(new)));
    assert_eq!(joined(&mut state, rejoin(7, "6", 2)), NodeId(7));
    assert!(state.view().unwrap().member(NodeId(5)).is_none());
}

fn mount(path: &str, options: &[(&str, &str)]) -> NewMount {
    let options = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    NewMount {
        path: MountPath::parse(path).unwrap(),
        ufs: "s3://bucket".into(),
        options: options.collect(),
    }
}

fn mount_id(applied: &Applied) -> u64 {
    match &applied.result {
        Ok(Outcome::Mount(mount)) => mount.id.0,
        other => panic!("no mount: {other:?}"),
    }
}

#[test]
fn mounts_get_ids_that_are_never_used_again_and_move_no_block() {
    let (mut state, _) = with_active_node();
    let added = apply(&mut state, Op::AddMount(mount("/a", &[])));
    assert_eq!(
        (mount_id(&added), added.effects.as_slice()),
        (1, [Effect::Settings].as_slice())
    );
    let path = MountPath::parse("/a").unwrap();
    let removed = apply(&mut state, Op::RemoveMount { path: path.clone() });
    assert_eq!(mount_id(&removed), 1);
    assert_eq!(
        mount_id(&apply(&mut state, Op::AddMount(mount("/a", &[])))),
        2
    );
    assert_eq!(epoch(&state), 1);

    let taken = refused(&mut state, Op::AddMount(mount("/a", &[])));
    assert_eq!(taken.kind(), ErrorKind::Invalid);
    assert!(taken.to_string().contains("already mounted"), "{taken}");
    let path = MountPath::parse("/b").unwrap();
    let missing = refused(&mut state, Op::RemoveMount { path });
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("/a"), "{missing}");
}

#[test]
fn an_update_sets_and_unsets_options_whole_or_not_at_all() {
    let mut state = bootstrapped();
    apply(
        &mut state,
        Op::AddMount(mount("/a", &[("x", "1"), ("y", "2")])),
    );
    let change = |path: &str, set: &[(&str, &str)], unset: &[&str]| {
        Op::UpdateMount(MountChange {
            path: MountPath::parse(path).unwrap(),
            set: mount(path, set).options,
            unset: unset.iter().map(|k| (*k).to_owned()).collect(),
        })
    };
    let updated = apply(&mut state, change("/a", &[("x", "3"), ("z", "4")], &["y"]));
    let Ok(Outcome::Mount(now)) = updated.result else {
        panic!("{updated:?}")
    };
    let expected = BTreeMap::from([("x".into(), "3".into()), ("z".into(), "4".into())]);
    assert_eq!((now.id.0, &now.options), (1, &expected));
    let same = apply(&mut state, change("/a", &[("x", "3")], &[]));
    assert_eq!(same.effects, [], "what is so already is no change");
    let error = refused(&mut state, change("/a", &[("x", "9")], &["y"]));
    assert!(error.to_string().contains("\"y\""), "{error}");
    let error = refused(&mut state, change("/q", &[("x", "9")], &[]));
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// What is in a log must be readable for ever: the text may gain fields, never change.
#[test]
fn golden_commands_are_stable() {
    let join = r#"{"v":1,"op":{"join":{"identity":null,"data_dir":"aa","incarnation":10,"addr":"10.0.0.1:7100","admin":"","zone":"","weight":100,"capacity":1073741824}}}"#;
    let dead = r#"{"v":1,"op":{"mark_dead":{"node":3,"incarnation":7}}}"#;
    let add = r#"{"v":1,"op":{"add_mount":{"path":"/a","ufs":"s3://bucket","options":{"k":"v"}}}}"#;
    let incarnation = 7;
    let node = NodeId(3);
    for (text, op) in [
        (join, Op::Join(first_join("aa", 10))),
        (dead, Op::MarkDead { node, incarnation }),
        (add, Op::AddMount(mount("/a", &[("k", "v")]))),
    ] {
        let command = Command::new(op);
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command);
        assert_eq!(serde_json::to_string(&command).unwrap(), text);
    }
}

#[test]
fn the_format_of_a_later_release_is_an_error() {
    let later = r#"{"v":2,"op":{"mark_dead":{"node":3,"incarnation":7}}}"#;
    let error = serde_json::from_str::<Command>(later)
        .unwrap_err()
        .to_string();
    assert!(error.contains("upgrade"), "{error}");
    let unknown = r#"{"v":1,"op":{"dance":{}}}"#;
    assert!(serde_json::from_str::<Command>(unknown).is_err());
}

#[test]
fn commands_print_without_secrets() {
    let command = Command::new(Op::AddMount(mount("/a", &[("secret_access_key", "hush")])));
    assert!(!format!("{command:?}").contains("hush"));
    let change = MountChange {
        path: MountPath::root(),
        set: mount("/a", &[("session_token", "hush")]).options,
        unset: Default::default(),
    };
    assert!(!format!("{:?}", Op::UpdateMount(change)).contains("hush"));
}

fn any_join() -> impl Strategy<Value = Op> {
    let identity = prop_oneof![
        Just(None),
        (0u64..6, any::<bool>()).prop_map(|(node, ours)| Some(Identity {
            cluster: if ours { OURS } else { OTHER },
            node: NodeId(node),
        })),
    ];
    (identity, 0u64..5, 1u64..6, 0u16..3, 1u32..3, 0u8..2).prop_map(
        |(identity, dir, incarnation, port, weight, zone)| {
            Op::Join(Join {
                identity,
                data_dir: format!("{dir:02x}"),
                incarnation,
                addr: format!("h:{port}"),
                admin: String::new(),
                zone: format!("z{zone}"),
                weight,
                capacity: 0,
            })
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    let who = || (0u64..6, 1u64..6).prop_map(|(node, incarnation)| (NodeId(node), incarnation));
    let path = || "/[ab]{1,2}".prop_map(|p| MountPath::parse(&p).unwrap());
    let options = || proptest::collection::btree_map("[xyz]", "[0-9]", 0..3);
    prop_oneof![
        6 => any_join(),
        4 => who().prop_map(|(node, incarnation)| Op::Activate { node, incarnation }),
        1 => who().prop_map(|(node, incarnation)| Op::Leave { node, incarnation }),
        2 => who().prop_map(|(node, incarnation)| Op::MarkDead { node, incarnation }),
        2 => (path(), options()).prop_map(|(path, options)| Op::AddMount(NewMount {
            path,
            ufs: "s3://b".into(),
            options,
        })),
        1 => (path(), options(), proptest::collection::btree_set("[xyz]", 0..2))
            .prop_map(|(path, set, unset)| Op::UpdateMount(MountChange { path, set, unset })),
        1 => path().prop_map(|path| Op::RemoveMount { path }),
        1 => Just(Op::Bootstrap { cluster: OTHER, block_size: BlockSize::MIN }),
        1 => Just(Op::Authority { ca_pem: "pem".into() }),
    ]
}

proptest! {
    /// Whatever is asked, in whatever order.
    #[test]
    fn every_history_keeps_the_invariants(ops in proptest::collection::vec(any_op(), 0..60)) {
        let mut state = bootstrapped();
        let mut given_mounts = std::collections::BTreeSet::new();
        for op in ops {
            let before = state.view().unwrap();
            let old = state.clone();
            let command = Command::new(op.clone());
            let applied = state.apply(&command);
            let after = state.view().unwrap();

            // A refused command has changed nothing; a changed view has a new version.
            prop_assert!(applied.result.is_ok() || (applied.effects.is_empty() && state == old));
            prop_assert_eq!(applied.effects.is_empty(), after == before);
            prop_assert_eq!(after.version, before.version + u64::from(after != before));

            // The epoch counts exactly the changes of who serves, where, and how much.
            let serving = |v: &millpond_proto::ClusterView| {
                v.serving()
                    .map(|m| (m.id, m.addr.clone(), m.weight, m.zone.clone()))
                    .collect::<Vec<_>>()
            };
            let moved = serving(&before) != serving(&after);
            prop_assert_eq!(after.epoch.0, before.epoch.0 + u64::from(moved));

            // Constants are constant; nobody speaks for a later process.
            prop_assert_eq!((after.cluster, after.block_size), (before.cluster, before.block_size));
            for member in &before.members {
                let now = after.member(member.id).unwrap();
                prop_assert!(now.incarnation >= member.incarnation);
            }

            // Ids and data directories are unique, ids are given in order.
            let ids: Vec<_> = after.members.iter().map(|m| m.id.0).collect();
            prop_assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{:?}", ids);
            let dirs: std::collections::BTreeSet<_> =
                state.members.values().map(|r| r.data_dir.clone()).collect();
            prop_assert_eq!(dirs.len(), ids.len());
            if let (Op::AddMount(_), Ok(Outcome::Mount(mount))) = (&op, &applied.result) {
                prop_assert!(given_mounts.insert(mount.id.0), "mount id given twice");
            }

            // The same command after a trip through the log, on a state after a trip through
            // a snapshot, gives the same state and the same answer.
            let mut copy: State =
                serde_json::from_slice(&serde_json::to_vec(&old).unwrap()).unwrap();
            prop_assert_eq!(&copy, &old);
            let logged: Command =
                serde_json::from_slice(&serde_json::to_vec(&command).unwrap()).unwrap();
            prop_assert_eq!(&copy.apply(&logged), &applied);
            prop_assert_eq!(&copy, &state);
            let answer: Applied =
                serde_json::from_slice(&serde_json::to_vec(&applied).unwrap()).unwrap();
            prop_assert_eq!(answer, applied);
        }
    }
}
