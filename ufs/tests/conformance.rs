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
    pub(crate) mod writes;
}

use conformance::{stores, suite, writes};

macro_rules! over {
    ($backend:ident: $($rule:ident),* $(,)?) => {
        over!($backend, suite as $backend: $($rule),*);
    };
    ($backend:ident, $rules:ident as $name:ident: $($rule:ident),* $(,)?) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let store = super::stores::$backend(stringify!($rule)).await;
                    super::$rules::$rule(&*store).await;
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

macro_rules! over_writable {
    ($backend:ident as $name:ident) => {
        over!($backend, writes as $name:
            what_is_put_is_read_and_replaces_what_was_there,
            conditions_hold,
            uploads_are_seen_when_they_are_whole,
            uploads_that_do_not_end_are_found_and_removed,
            directories_are_made_and_stay_until_removed,
            files_are_renamed,
            files_are_copied,
            names_that_cannot_be_are_refused,
            a_read_only_mount_refuses_every_change,
            attributes_and_links_are_kept,
        );
    };
}

over_writable!(memory as memory_written);
over_writable!(local as local_written);
over_writable!(s3 as s3_written);

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
