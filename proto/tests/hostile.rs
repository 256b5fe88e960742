//! Every decoder of a peer's bytes, with valid messages that were damaged and with bytes that
//! never were one: nothing panics, and what is reserved follows from how much came, not from
//! what it claims. `PROPTEST_CASES=1000000 cargo test -p millpond-proto --test hostile` takes
//! longer and sees more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use millpond_proto::wire::frame::{
    BlockSource, Op, REQUEST_HEADER_LEN, RESPONSE_HEADER_LEN, Request, ResponseHead, Tier,
};
use millpond_proto::wire::local::{
    ANSWER_LEN, ASK_LEN, Answer, Ask, CHALLENGE_LEN, Challenge, HELLO_LEN, Hello, LocalOffer,
    Shared,
};
use millpond_proto::wire::pb;
use millpond_proto::wire::query::{
    self, ListAnswer, News, Oldest, PathAt, PathAttr, PathKind, PathQuery, Seen, StatAnswer,
};
use millpond_proto::{
    BlockId, BlockSize, Change, ClusterId, ClusterView, Epoch, ErrorKind, FileId, FileVersion,
    Member, MemberState, MountId, MountTable, NodeId, NodeStats,
};
use proptest::prelude::*;
use prost::Message as _;

/// The system's allocator, which knows what this thread holds, and held at most.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Threads allocate until their very end, when these are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that this thread held while `work` ran, beside those from before.
fn most_held<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD.get();
    MOST.set(before);
    let done = work();
    (done, MOST.get().saturating_sub(before).max(0) as u64)
}

/// What a decoder may reserve for `len` bytes: what a sequence may reserve before its elements
/// are seen (serde's own limit), and their size in memory.
fn allowed(len: usize) -> u64 {
    (1 << 20) + (64 << 10) + 256 * len as u64
}

/// How a message is damaged.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    /// A length, or a count, as large as it goes.
    Most(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    /// A part of it once more.
    Again(prop::sample::Index, prop::sample::Index),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<prop::sample::Index>;
    let one = prop_oneof![
        4 => (index(), 1..=u8::MAX).prop_map(|(at, with)| Damage::Flip(at, with)),
        1 => index().prop_map(Damage::Cut),
        2 => (index(), 1u8..=10).prop_map(|(at, len)| Damage::Most(at, len)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (index(), index()).prop_map(|(a, b)| Damage::Again(a, b)),
    ];
    prop::collection::vec(one, 1..5)
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let place = |index: &prop::sample::Index, len: usize| index.index(len + 1);
        match damage {
            Damage::Flip(at, with) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            Damage::Flip(..) => {}
            Damage::Cut(at) => bytes.truncate(place(at, bytes.len())),
            Damage::Most(at, len) => {
                let at = place(at, bytes.len());
                let end = (at + usize::from(*len)).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            Damage::Insert(at, more) => {
                let at = place(at, bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Again(a, b) => {
                let (a, b) = (place(a, bytes.len()), place(b, bytes.len()));
                let part = bytes[a.min(b)..a.max(b)].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

fn versions() -> impl Strategy<Value = FileVersion> {
    prop_oneof![
        ".{0,20}".prop_map(|tag| FileVersion::ETag(tag.into())),
        any::<i64>().prop_map(FileVersion::Modified),
        any::<(i64, i64, u64)>().prop_map(|(mtime_ns, ctime_ns, ino)| FileVersion::Local {
            mtime_ns,
            ctime_ns,
            ino
        }),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    (".{0,40}", any::<bool>()).prop_map(|(path, recursive)| Change { path, recursive })
}

fn queries() -> impl Strategy<Value = PathQuery> {
    let at = (any::<u64>(), ".{0,60}").prop_map(|(mount, below)| PathAt {
        mount: MountId(mount),
        below,
    });
    let oldest = any::<(u64, u64)>().prop_map(|(presence_ms, absence_ms)| Oldest {
        presence_ms,
        absence_ms,
    });
    let seen = any::<(u64, u64)>().prop_map(|(log, seq)| Seen { log, seq });
    prop_oneof![
        (at.clone(), oldest.clone()).prop_map(|(at, oldest)| PathQuery::Stat { at, oldest }),
        (at, oldest, any::<Option<u64>>(), any::<u32>()).prop_map(|(at, oldest, listing, page)| {
            PathQuery::List {
                at,
                oldest,
                listing,
                page,
            }
        }),
        (changes(), any::<u64>(), any::<bool>()).prop_map(|(change, origin, publish)| {
            PathQuery::Forget {
                change,
                origin,
                publish,
            }
        }),
        (prop::option::of(seen), any::<u64>())
            .prop_map(|(seen, origin)| PathQuery::Watch { seen, origin }),
    ]
}

fn attrs() -> impl Strategy<Value = PathAttr> {
    let kind = prop_oneof![
        Just(PathKind::File),
        Just(PathKind::Directory),
        Just(PathKind::Symlink)
    ];
    let rest = any::<(u64, Option<(i64, u32)>, Option<u32>, Option<u32>)>();
    (kind, rest, prop::option::of(versions())).prop_map(|(kind, rest, version)| PathAttr {
        kind,
        size: rest.0,
        version,
        mtime: rest.1,
        mode: rest.2,
        uid: rest.3,
        gid: rest.3,
        nlink: rest.2,
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let source =
        (any::<u64>(), ".{0,80}", versions()).prop_map(|(mount, path, version)| BlockSource {
            mount: MountId(mount),
            path,
            version,
        });
    let body = prop_oneof![
        prop::option::of(source).prop_map(|source| (Op::Read, source, None)),
        queries().prop_map(|query| {
            let op = match query {
                PathQuery::Stat { .. } => Op::Stat,
                PathQuery::List { .. } => Op::List,
                PathQuery::Forget { .. } => Op::Forget,
                PathQuery::Watch { .. } => Op::Watch,
            };
            (op, None, Some(query))
        }),
        Just((Op::Local, None, None)),
    ];
    let numbers = any::<(u64, [u8; 16], u64, u32, u32, u64, u32)>();
    (body, numbers).prop_map(|((op, source, query), n)| Request {
        op,
        epoch: Epoch(n.0),
        block: BlockId::new(FileId(n.1), n.2),
        offset: n.3,
        len: n.4,
        file_size: n.5,
        deadline_ms: n.6,
        source,
        query,
    })
}

fn views() -> impl Strategy<Value = ClusterView> {
    let state = prop_oneof![Just(MemberState::Active), Just(MemberState::Draining)];
    let member =
        (any::<(u64, u32, u64)>(), "[a-z0-9.:]{0,20}", state).prop_map(|(n, addr, state)| Member {
            id: NodeId(n.0),
            admin: addr.clone(),
            zone: addr.clone(),
            addr,
            weight: n.1,
            capacity: n.2,
            state,
            incarnation: n.2,
        });
    (any::<(u64, u64)>(), prop::collection::vec(member, 0..6)).prop_map(|(n, members)| {
        ClusterView {
            cluster: ClusterId([7; 16]),
            version: n.0,
            epoch: Epoch(n.1),
            block_size: BlockSize::DEFAULT,
            members,
            mounts: MountTable::standalone("s3://b/p".into(), [("k".into(), "v".into())].into()),
        }
    })
}

/// Reads a request as a server does: as many bytes as its header says, if they came.
fn read_request(bytes: &[u8]) -> Option<Request> {
    let (mut request, len) = Request::decode_header(bytes).ok()?;
    let body = bytes.get(REQUEST_HEADER_LEN..REQUEST_HEADER_LEN + len)?;
    request.decode_body(body).ok()?;
    Some(request)
}

fn read_view(bytes: &[u8]) -> Option<ClusterView> {
    pb::View::decode(bytes).ok()?.try_into().ok()
}

/// Gives `bytes` to every decoder there is.
fn decode_as_everything(bytes: &[u8]) {
    let _ = read_request(bytes);
    if let Ok((mut request, _)) = Request::decode_header(bytes) {
        let _ = request.decode_body(bytes);
    }
    let _ = ResponseHead::decode(bytes);
    let _ = query::decode::<PathQuery>(bytes);
    let _ = query::decode::<BlockSource>(bytes);
    let _ = query::decode::<StatAnswer>(bytes);
    let _ = query::decode::<ListAnswer>(bytes);
    let _ = query::decode::<News>(bytes);
    let _ = query::decode::<LocalOffer>(bytes);
    let _ = read_view(bytes);
    let _ = pb::NodeStats::decode(bytes).map(NodeStats::from);
    let _ = serde_json::from_slice::<ClusterView>(bytes);
    let ask = Ask {
        block: BlockId::new(FileId([0; 16]), 0),
        offset: 5,
        len: 70_000,
        damaged: false,
    };
    let first = |len| bytes.get(..len);
    let _ = first(HELLO_LEN).map(|b| Hello::decode(b.try_into().unwrap()));
    let _ = first(CHALLENGE_LEN).map(|b| Challenge::decode(b.try_into().unwrap()));
    let _ = first(ASK_LEN).map(|b| Ask::decode(b.try_into().unwrap()));
    let _ = first(ANSWER_LEN).map(|b| Answer::decode(b.try_into().unwrap(), &ask));
}

/// A valid message of any kind, encoded.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let head = any::<(u64, u32, u16)>().prop_map(|(epoch, data_len, trailer)| {
        let head = ResponseHead {
            outcome: if trailer % 2 == 0 {
                Ok(())
            } else {
                Err(ErrorKind::Busy)
            },
            tier: Tier::Disk,
            epoch: Epoch(epoch),
            data_len,
            trailer_len: u32::from(trailer % 4096),
        };
        head.encode().to_vec()
    });
    let stat = (any::<u64>(), prop::option::of(attrs()))
        .prop_map(|(age_ms, found)| query::encode(&StatAnswer { age_ms, found }).unwrap());
    let list = prop::collection::vec((".{0,20}", attrs()), 0..20).prop_map(|entries| {
        let page = ListAnswer {
            listing: 1,
            age_ms: 2,
            end: entries.is_empty(),
            entries,
        };
        query::encode(&page).unwrap()
    });
    let seen = Seen { log: 1, seq: 2 };
    let news = prop::option::of(prop::collection::vec(changes(), 0..10))
        .prop_map(move |changes| query::encode(&News { seen, changes }).unwrap());
    let offer = any::<([u8; 16], [u8; 32])>().prop_map(|(client, secret)| {
        let name = "millpond/node-1/0".to_owned();
        query::encode(&LocalOffer {
            name,
            client,
            secret,
        })
        .unwrap()
    });
    let answer = any::<(u64, u16)>().prop_map(|(epoch, len)| {
        let what = Shared::File {
            start: 0,
            len: 70_005 + u32::from(len),
        };
        let (tier, epoch) = (Tier::Disk, Epoch(epoch));
        Answer { tier, epoch, what }.encode().to_vec()
    });
    prop_oneof![
        4 => requests().prop_map(|request| request.encode().unwrap()),
        1 => head,
        1 => stat,
        2 => list,
        1 => news,
        1 => offer,
        1 => answer,
        1 => views().prop_map(|view| pb::View::from(&view).encode_to_vec()),
        1 => views().prop_map(|view| serde_json::to_vec(&view).unwrap()),
    ]
}

proptest! {
    #[test]
    fn damaged_messages_neither_panic_nor_reserve_what_did_not_come(
        message in messages(),
        damages in damages(),
    ) {
        let bytes = damaged(message, &damages);
        let ((), most) = most_held(|| decode_as_everything(&bytes));
        prop_assert!(most <= allowed(bytes.len()), "{most} for {} bytes", bytes.len());
    }

    #[test]
    fn bytes_that_never_were_a_message_neither(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        magic in prop_oneof![Just(&b""[..]), Just(&b"MP\x01"[..]), Just(&b"ML\x01"[..])],
    ) {
        let bytes = [magic, &bytes].concat();
        let ((), most) = most_held(|| decode_as_everything(&bytes));
        prop_assert!(most <= allowed(bytes.len()), "{most} for {} bytes", bytes.len());
    }

    #[test]
    fn what_a_decoder_takes_it_gives_back(request in requests(), damages in damages()) {
        let sound = request.encode().unwrap();
        prop_assert_eq!(read_request(&sound), Some(request));
        // A damaged one that is still a request is one that can be sent.
        if let Some(other) = read_request(&damaged(sound, &damages)) {
            let again = other.encode().unwrap();
            prop_assert_eq!(read_request(&again), Some(other));
        }
    }

    #[test]
    fn heads_and_views_survive_too(view in views(), head in any::<[u8; RESPONSE_HEADER_LEN]>()) {
        let message = pb::View::from(&view).encode_to_vec();
        prop_assert_eq!(read_view(&message), Some(view.clone()));
        let json = serde_json::to_vec(&view).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ClusterView>(&json).unwrap(), view);
        let mut framed = head;
        framed[..3].copy_from_slice(b"MP\x01");
        if let Ok(head) = ResponseHead::decode(&framed) {
            let again = ResponseHead::decode(&head.encode());
            // An unknown code stands for the kind that it is read as.
            prop_assert_eq!(again, Ok(head));
        }
    }
}

#[test]
fn the_allocator_counts() {
    let (_, most) = most_held(|| drop(vec![0u8; 12_345]));
    assert!((12_345..20_000).contains(&most), "{most}");
}
