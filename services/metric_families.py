"""Every family of /metrics: name, type, labels, text and, of histograms, bounds.

Names, types and labels are etcd's, so that its dashboards and alerts work; those that begin with ``actcd_`` are our
own.  A family without samples is left out of the page; one that has no labels and whose actor is silent too.
"""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """One family."""

    kind: str
    """gauge, counter or histogram."""
    text: str
    labels: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "actcd_actor_batches_total": Family("counter", "How often the mailbox of an actor was drained.", ("actor",)),
    "actcd_actor_busy_seconds_total": Family(
        "counter", "Time that an actor on a shared loop has spent on its messages.", ("actor",)
    ),
    "actcd_actor_mailbox_depth": Family("gauge", "Messages that wait for an actor.", ("actor",)),
    "actcd_actor_messages_total": Family("counter", "Messages that an actor has taken.", ("actor",)),
    "actcd_corruption_checks_total": Family(
        "counter",
        "Comparisons of the members' data by kind and outcome; incomplete means that somebody could not be compared.",
        ("check", "outcome"),
    ),
    "actcd_extension_calls_lost_total": Family(
        "counter", "Calls of which an extension was not told, since it was too slow.", ("extension",)
    ),
    "actcd_extension_mailbox_depth": Family("gauge", "Messages that wait for an extension.", ("extension",)),
    "actcd_extension_restarts_total": Family(
        "counter", "How often an extension had to be started again.", ("extension",)
    ),
    "actcd_extension_state": Family("gauge", "What an extension is doing; always 1.", ("extension", "state")),
    "actcd_proxy_endpoints_connected": Family("gauge", "Members that the gRPC proxy is connected to."),
    "actcd_proxy_leased_keys": Family("gauge", "Keys that the gRPC proxy owns, with a leasing prefix."),
    "actcd_proxy_leased_reads_total": Family("counter", "Linearizable reads that it has answered from those."),
    "etcd_cluster_version": Family(
        "gauge", "The version that the members have agreed on; always 1.", ("cluster_version",)
    ),
    "etcd_debugging_auth_revision": Family("gauge", "Revision of the users, roles and permissions."),
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds": Family(
        "histogram", "Of a store that is a tree of pages, which this is not."
    ),
    "etcd_debugging_disk_backend_commit_spill_duration_seconds": Family(
        "histogram", "Of a store that is a tree of pages, which this is not."
    ),
    "etcd_debugging_disk_backend_commit_write_duration_seconds": Family(
        "histogram", "Time to write a batch of applied entries into the store."
    ),
    "etcd_debugging_lease_granted_total": Family("counter", "Leases granted since the start."),
    "etcd_debugging_lease_renewed_total": Family("counter", "Renewals of leases by this member as their primary."),
    "etcd_debugging_lease_revoked_total": Family("counter", "Leases revoked since the start."),
    "etcd_debugging_lease_ttl_total": Family("histogram", "Times to live of the leases that were granted, in seconds."),
    "etcd_debugging_mvcc_compact_revision": Family("gauge", "Revision of the last compaction."),
    "etcd_debugging_mvcc_current_revision": Family("gauge", "Revision of the store."),
    "etcd_debugging_mvcc_db_compaction_keys_total": Family("counter", "Revisions that compactions have removed."),
    "etcd_debugging_mvcc_db_compaction_last": Family(
        "gauge", "When the last compaction ended, in Unix seconds; 0 after a start."
    ),
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds": Family(
        "histogram", "Time of the single steps of compactions."
    ),
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": Family("histogram", "Time of whole compactions."),
    "etcd_debugging_mvcc_events_total": Family("counter", "Events sent to watchers."),
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds": Family(
        "histogram", "Of an index apart from the store, which there is not."
    ),
    "etcd_debugging_mvcc_keys_total": Family("gauge", "Live keys."),
    "etcd_debugging_mvcc_pending_events_total": Family(
        "gauge", "Events kept for slow watchers: none, they read history."
    ),
    "etcd_debugging_mvcc_range_total": Family(
        "counter", "Ranges read by clients; the older name of etcd_mvcc_range_total."
    ),
    "etcd_debugging_mvcc_slow_watcher_total": Family("gauge", "Watchers that have not caught up yet."),
    "etcd_debugging_mvcc_total_put_size_in_bytes": Family(
        "gauge", "Bytes of the keys and values that were put, as they are stored."
    ),
    "etcd_debugging_mvcc_watch_stream_total": Family("gauge", "Watch streams that are open."),
    "etcd_debugging_mvcc_watcher_total": Family("gauge", "Watchers."),
    "etcd_debugging_server_alarms": Family(
        "gauge", "Alarms that are active, by member; always 1.", ("server_id", "alarm_type")
    ),
    "etcd_debugging_server_lease_expired_total": Family("counter", "Leases found expired."),
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds": Family(
        "histogram", "Time for one request of a watch stream."
    ),
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds": Family(
        "histogram", "Time for the progress messages of one moment."
    ),
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds": Family(
        "histogram", "Time for a batch of events, for each event sent."
    ),
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds": Family(
        "histogram", "Time for a batch of events, to all who watch them."
    ),
    "etcd_debugging_snap_save_marshalling_duration_seconds": Family(
        "histogram", "Of putting a raft snapshot's file together, which takes no time here."
    ),
    "etcd_debugging_snap_save_total_duration_seconds": Family(
        "histogram", "Time to write the file of a raft snapshot durably."
    ),
    "etcd_debugging_store_expires_total": Family("counter", "Of the store behind API 2, which there is not."),
    "etcd_debugging_store_reads_failed_total": Family(
        "counter", "Of the store behind API 2, which there is not.", ("action",)
    ),
    "etcd_debugging_store_reads_total": Family(
        "counter", "Of the store behind API 2, which there is not.", ("action",)
    ),
    "etcd_debugging_store_watch_requests_total": Family("counter", "Of the store behind API 2, which there is not."),
    "etcd_debugging_store_watchers": Family("gauge", "Of the store behind API 2, which there is not."),
    "etcd_debugging_store_writes_failed_total": Family(
        "counter", "Of the store behind API 2, which there is not.", ("action",)
    ),
    "etcd_debugging_store_writes_total": Family(
        "counter", "Of the store behind API 2, which there is not.", ("action",)
    ),
    "etcd_disk_backend_commit_duration_seconds": Family(
        "histogram", "Time to write a batch of applied entries into the store."
    ),
    "etcd_disk_backend_defrag_duration_seconds": Family("histogram", "Time of defragmentations."),
    "etcd_disk_backend_snapshot_duration_seconds": Family(
        "histogram", "Time to make and send a snapshot of the store to a client."
    ),
    "etcd_disk_defrag_inflight": Family("gauge", "Defragmentations that run."),
    "etcd_disk_wal_fsync_duration_seconds": Family(
        "histogram", "Time to make the log durable, until its end is noticed."
    ),
    "etcd_disk_wal_write_bytes_total": Family("gauge", "Bytes written to the log."),
    "etcd_disk_wal_write_duration_seconds": Family("histogram", "Time to write to the log, without making it durable."),
    "etcd_grpc_proxy_cache_hits_total": Family("gauge", "Reads that the gRPC proxy answered from its cache."),
    "etcd_grpc_proxy_cache_keys_total": Family("gauge", "Answers in the cache of the gRPC proxy."),
    "etcd_grpc_proxy_cache_misses_total": Family("gauge", "Serializable reads that were not in its cache."),
    "etcd_grpc_proxy_events_coalescing_total": Family(
        "counter", "Answers that watchers got without one of their own from a member."
    ),
    "etcd_grpc_proxy_watchers_coalescing_total": Family(
        "gauge", "Watchers of the gRPC proxy's clients that need none of their own at a member."
    ),
    "etcd_mvcc_db_open_read_transactions": Family("gauge", "Long reads and snapshots that run beside the traffic."),
    "etcd_mvcc_db_total_size_in_bytes": Family("gauge", "Bytes that the store's files take."),
    "etcd_mvcc_db_total_size_in_use_in_bytes": Family("gauge", "Bytes of the store's files that hold data."),
    "etcd_mvcc_delete_total": Family("counter", "Keys deleted."),
    "etcd_mvcc_hash_duration_seconds": Family("histogram", "Time to hash the whole store."),
    "etcd_mvcc_hash_rev_duration_seconds": Family("histogram", "Time to hash the keys at a revision."),
    "etcd_mvcc_put_total": Family("counter", "Keys put."),
    "etcd_mvcc_range_total": Family("counter", "Ranges read by clients."),
    "etcd_mvcc_txn_total": Family("counter", "Transactions with more than one change."),
    "etcd_network_active_peers": Family("gauge", "Whether a member is connected.", ("Local", "Remote")),
    "etcd_network_client_grpc_received_bytes_total": Family("counter", "Bytes of the messages that clients have sent."),
    "etcd_network_client_grpc_sent_bytes_total": Family("counter", "Bytes of the messages sent to clients."),
    "etcd_network_disconnected_peers_total": Family(
        "counter", "How often the connection to a member was lost.", ("Local", "Remote")
    ),
    "etcd_network_known_peers": Family("gauge", "The other members; always 1.", ("Local", "Remote")),
    "etcd_network_peer_received_bytes_total": Family("counter", "Bytes of raft's messages from a member.", ("From",)),
    "etcd_network_peer_received_failures_total": Family(
        "counter", "How often the stream from a member broke off.", ("From",)
    ),
    "etcd_network_peer_round_trip_time_seconds": Family("histogram", "How long probes of a member took.", ("To",)),
    "etcd_network_peer_sent_bytes_total": Family("counter", "Bytes of raft's messages to a member.", ("To",)),
    "etcd_network_peer_sent_failures_total": Family("counter", "Losses of messages to a member.", ("To",)),
    "etcd_network_server_stream_failures_total": Family(
        "counter", "Streams of clients that ended with an error.", ("Type", "API")
    ),
    "etcd_network_snapshot_receive_failures": Family(
        "counter", "Snapshots from a member that did not arrive whole.", ("From",)
    ),
    "etcd_network_snapshot_receive_inflights_total": Family(
        "gauge", "Snapshots that are coming from a member.", ("From",)
    ),
    "etcd_network_snapshot_receive_success": Family("counter", "Snapshots that came from a member.", ("From",)),
    "etcd_network_snapshot_receive_total_duration_seconds": Family(
        "histogram", "Time that snapshots from a member took.", ("From",)
    ),
    "etcd_network_snapshot_send_failures": Family("counter", "Snapshots that could not be sent to a member.", ("To",)),
    "etcd_network_snapshot_send_inflights_total": Family("gauge", "Snapshots that are going to a member.", ("To",)),
    "etcd_network_snapshot_send_success": Family("counter", "Snapshots sent to a member.", ("To",)),
    "etcd_network_snapshot_send_total_duration_seconds": Family(
        "histogram", "Time that snapshots to a member took.", ("To",)
    ),
    "etcd_server_apply_duration_seconds": Family(
        "histogram", "Time to apply an entry, as its share of the batch that it came in.", ("version", "op", "success")
    ),
    "etcd_server_client_requests_total": Family(
        "counter", "Calls by kind and by the version that the client tells.", ("type", "client_api_version")
    ),
    "etcd_server_feature_enabled": Family("gauge", "Whether a feature gate is on.", ("name", "stage")),
    "etcd_server_go_version": Family(
        "gauge", "What the server runs on: here the Python interpreter; always 1.", ("server_go_version",)
    ),
    "etcd_server_has_leader": Family("gauge", "Whether a leader is known."),
    "etcd_server_health_failures": Family("counter", "Requests for /health that found this member ill."),
    "etcd_server_health_success": Family("counter", "Requests for /health that found this member well."),
    "etcd_server_healthcheck": Family(
        "gauge", "How each check of /livez and /readyz last went: 1 is well.", ("type", "name")
    ),
    "etcd_server_healthchecks_total": Family(
        "counter", "How the checks of /livez and /readyz went so far.", ("type", "name", "status")
    ),
    "etcd_server_heartbeat_send_failures_total": Family(
        "counter", "Heartbeats of this leader that were late by more than an interval."
    ),
    "etcd_server_id": Family("gauge", "This member's id, in hexadecimal; always 1.", ("server_id",)),
    "etcd_server_is_leader": Family("gauge", "Whether this member leads."),
    "etcd_server_is_learner": Family("gauge", "Whether this member is a learner."),
    "etcd_server_leader_changes_seen_total": Family("counter", "How often a new leader was seen."),
    "etcd_server_learner_promote_failures": Family(
        "counter", "Learners that were not promoted, by the reason.", ("Reason",)
    ),
    "etcd_server_learner_promote_successes": Family("counter", "Learners that were promoted while this member led."),
    "etcd_server_proposals_applied_total": Family("gauge", "Index of the last entry that was applied."),
    "etcd_server_proposals_committed_total": Family("gauge", "Index of the last entry that was committed."),
    "etcd_server_proposals_failed_total": Family(
        "counter", "Proposals that were not taken or found no quorum in time."
    ),
    "etcd_server_proposals_pending": Family("gauge", "Proposals of clients that wait for their answer."),
    "etcd_server_quota_backend_bytes": Family("gauge", "Size from which on the store refuses to grow."),
    "etcd_server_range_duration_seconds": Family(
        "histogram", "Time to read a range; of the reads of one key in a turn of the loop, as the first.", ("success",)
    ),
    "etcd_server_read_indexes_failed_total": Family("counter", "Rounds of linearizable reads that failed."),
    "etcd_server_request_duration_seconds": Family(
        "histogram", "Time from a client's request until it is answered, by its kind.", ("type", "success")
    ),
    "etcd_server_slow_apply_total": Family("counter", "Batches whose application took longer than it should."),
    "etcd_server_slow_read_indexes_total": Family("counter", "Rounds of linearizable reads that timed out."),
    "etcd_server_snapshot_apply_in_progress_total": Family(
        "gauge", "Whether a snapshot is being put into the store's place."
    ),
    "etcd_server_version": Family("gauge", "The version of the server; always 1.", ("server_version",)),
    "etcd_snap_db_fsync_duration_seconds": Family(
        "histogram", "Time to check a snapshot that has come and make it durable."
    ),
    "etcd_snap_db_save_total_duration_seconds": Family(
        "histogram", "Time from the first byte of a snapshot that comes until it is durable."
    ),
    "etcd_snap_fsync_duration_seconds": Family("histogram", "Time to write the file of a raft snapshot durably."),
    "grpc_server_handled_total": Family(
        "counter", "Calls ended, by code.", ("grpc_type", "grpc_service", "grpc_method", "grpc_code")
    ),
    "grpc_server_handling_seconds": Family(
        "histogram", "Time that calls took.", ("grpc_type", "grpc_service", "grpc_method")
    ),
    "grpc_server_msg_received_total": Family(
        "counter", "Messages received.", ("grpc_type", "grpc_service", "grpc_method")
    ),
    "grpc_server_msg_sent_total": Family("counter", "Messages sent.", ("grpc_type", "grpc_service", "grpc_method")),
    "grpc_server_started_total": Family("counter", "Calls begun.", ("grpc_type", "grpc_service", "grpc_method")),
    "os_fd_limit": Family("gauge", "File descriptors that the process may have open."),
    "os_fd_used": Family("gauge", "File descriptors that the process has open."),
    "process_virtual_memory_max_bytes": Family("gauge", "How much address space the process may have."),
    "promhttp_metric_handler_requests_in_flight": Family("gauge", "Requests for this page that are under way."),
    "promhttp_metric_handler_requests_total": Family(
        "counter", "Requests for this page by the status of the answer.", ("code",)
    ),
}
