#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]
//! One suite of functions, run over every backend that can run here. The doc comment of each
//! function in `suite.rs` is the rule that it holds.

mod conformance {
    pub(crate) mod stores;
    pub(crate) mod suite;
    pub(crate) mod web;
}

use conformance::{stores, suite};

macro_rules! over {
    ($backend:ident: $($rule:ident),* $(,)?) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let store = super::stores::$backend(stringify!($rule)).await;
                    super::suite::$rule(&*store).await;
                    store.finish();
                }
            )*
        }
    };
}

macro_rules! over_object_store {
    ($backend:ident) => {
        over!($backend:
            whole_files_and_ranges_read_exactly,
            ranges_beyond_the_end_are_invalid,
            what_is_missing_is_not_found,
            a_replaced_file_is_stale_and_reads_anew,
            a_deleted_file_is_not_found,
            odd_names_are_kept_byte_for_byte,
            malformed_paths_are_invalid,
            there_are_no_links,
            directories_need_no_object,
            listings_agree_with_stat,
            long_listings_come_in_pages_each_name_once,
            markers_make_directories,
            a_directory_hides_the_object_of_its_name,
            unreachable_keys_are_hidden,
            keys_outside_the_prefix_are_not_seen,
            object_uris_are_the_same_through_two_mounts,
        );
    };
}

over_object_store!(memory);
over_object_store!(shaped);
over_object_store!(s3);
over_object_store!(gcs);
over_object_store!(azure);

over!(local:
    whole_files_and_ranges_read_exactly,
    ranges_beyond_the_end_are_invalid,
    what_is_missing_is_not_found,
    a_replaced_file_is_stale_and_reads_anew,
    a_deleted_file_is_not_found,
    odd_names_are_kept_byte_for_byte,
    malformed_paths_are_invalid,
    directories_need_no_object,
    listings_agree_with_stat,
    long_listings_come_in_pages_each_name_once,
    keys_outside_the_prefix_are_not_seen,
    object_uris_are_the_same_through_two_mounts,
);

over!(http:
    whole_files_and_ranges_read_exactly,
    ranges_beyond_the_end_are_invalid,
    a_replaced_file_is_stale_and_reads_anew,
    a_deleted_file_is_not_found,
    odd_names_are_kept_byte_for_byte,
    malformed_paths_are_invalid,
    there_are_no_links,
    object_uris_are_the_same_through_two_mounts,
);
