"""Which tests prove which row of the bridge between the revisions, cell by cell.

``protocol_map`` names a section (2.3.4) as a whole; here each row of its table stands by itself.
``NO_PROOF`` says of a row what is not built, and why. ``test_maps`` keeps both to tests that
exist, ``test_protocol_map`` to the rows there are.
"""


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(f"tests/{file}.py::test_{test}" for test in tests)


_CELLS = "journeys/test_cells"
_NODES = "journeys/test_questions_over_nodes"
_SHARED = "journeys/test_sessions_over_nodes"
_ACROSS = "virtualmcp/test_questions_across_eras"
_CALLS = "virtualmcp/test_calls"
_LISTS = "virtualmcp/test_lists"
_LEGACY = "upstreams/test_mcp_client_legacy"
_MODERN = "upstreams/test_mcp_client_modern"
_NOTICES = "virtualmcp/test_endpoint_notices"
_SESSIONS = "virtualmcp/test_endpoint_sessions"
_STREAMS = "virtualmcp/test_endpoint_streams"
_RESUMED = "virtualmcp/test_endpoint_resumption"
_UP_DOWN = "virtualmcp/test_conversion"
_OPENING = "virtualmcp/test_opening"
_TASKS = "virtualmcp/test_tasks"
_ROWS = "virtualmcp/test_bridge_rows"
_CHANGES = "upstreams/test_change_streams"

MAP: dict[str, tuple[str, ...]] = {
    # Opening
    "2.3.1 open": _in(
        _OPENING, "connecting_again_asks_nobody", "a_slow_upstream_does_not_hold_the_opening_up"
    )
    + _in(_SESSIONS, "initialize_answers_with_the_revision_and_what_is_served")
    + _in(_SESSIONS, "discover_tells_what_is_served"),
    "2.3.1 capabilities": _in(
        _OPENING,
        "capabilities_are_the_union_and_nothing_that_is_not_served",
        "a_single_upstream_passes_extensions_and_experiments_on",
    ),
    "2.3.1 client capabilities": _in(_LEGACY, "exactly_what_the_client_can_do_is_declared")
    + _in(
        _MODERN,
        "params_of_a_legacy_client_get_the_modern_members",
        "modern_params_go_out_byte_for_byte",
    ),
    "2.3.1 clientInfo": _in(
        _ROWS,
        "a_stateful_upstream_meets_the_gateway_and_reads_whose_it_is",
        "a_stateless_upstream_reads_with_each_request_which_client_it_is_for",
    )
    + _in(_MODERN, "modern_params_go_out_byte_for_byte"),
    "2.3.1 initialized and ping": _in(_SESSIONS, "notifications_are_accepted_and_go_nowhere")
    + _in(
        "upstreams/test_mcp_client_questions",
        "a_ping_of_the_upstream_is_answered_while_a_call_runs",
    )
    + _in(_CHANGES, "pings_are_answered_and_questions_refused_outside_of_calls"),
    "2.3.1 pool key": _in(
        _LEGACY,
        "a_session_is_not_shared_between_people_credentials_or_abilities",
        "a_refreshed_token_goes_on_in_the_same_session",
        "fifty_calls_at_once_open_one_session",
    ),
    "2.3.1 session_scope": _in(
        "virtualmcp/test_session_scope",
        "a_persons_clients_share_a_session_unless_they_are_to_have_their_own",
        "what_an_upstream_remembers_is_one_client_sessions_own",
        "each_call_may_have_a_session_that_ends_with_it",
        "a_question_in_a_session_of_its_own_is_answered_before_it_ends",
    ),
    "2.3.1 roots/list_changed": _in(
        "virtualmcp/test_session_questions",
        "after_a_notice_of_changed_roots_its_client_is_asked_for_them",
        "of_many_notices_of_changed_roots_the_first_and_the_last_are_passed_on",
    ),
    "2.3.1 lost session": _in(
        _LEGACY,
        "a_lost_session_is_opened_anew_and_the_call_made_once_more",
        "a_server_that_never_knows_its_sessions_is_asked_twice_and_no_more",
    )
    + _in(_ROWS, "a_call_that_an_upstream_may_have_begun_is_not_made_again"),
    # Lists
    "2.3.2 entries": _in(_CELLS, "tools_are_listed_and_called_with_everything_upstream_said")
    + _in(_ROWS, "a_tool_with_bad_header_annotations_is_left_out_where_they_would_count"),
    "2.3.2 envelope": _in(
        _LISTS,
        "a_stateless_list_is_typed_hinted_and_signed_by_the_gateway",
        "a_stateful_list_has_none_of_that",
    ),
    "2.3.2 authorization context": _in(
        _LISTS, "two_peoples_lists_never_mix", "a_replaced_shared_credential_takes_its_lists_along"
    ),
    "2.3.2 lifetime": _in(
        _ROWS, "a_list_lives_as_long_as_its_shortest_part_and_belongs_to_one_person"
    ),
    "2.3.2 announced": _in(
        _NOTICES,
        "an_administrators_choice_is_told_to_who_sees_another_list",
        "an_account_that_is_connected_or_ended_changes_the_persons_lists",
    ),
    # Calls
    "2.3.3 names and URIs": _in(
        _CALLS,
        "public_names_lead_to_their_owner_and_go_out_as_it_knows_them",
        "resources_are_read_by_mapped_bare_and_web_uris",
        "completion_of_a_template_goes_to_its_owner",
    ),
    "2.3.3 headers": _in(
        _CALLS,
        "mirrored_arguments_are_checked_and_made_anew_for_the_upstream",
        "a_stateful_clients_call_gets_the_headers_a_stateless_upstream_wants",
    )
    + _in(_MODERN, "the_headers_repeat_the_body"),
    "2.3.3 _meta": _in(_LEGACY, "modern_members_stay_at_home_and_unknown_ones_travel")
    + _in(
        _MODERN,
        "params_of_a_legacy_client_get_the_modern_members",
        "a_progress_token_is_replaced_and_nothing_else_changed",
    ),
    "2.3.3 result": _in(
        _UP_DOWN,
        "going_up_adds_only_what_is_the_gateways",
        "going_up_and_down_again_is_where_it_began",
        "between_stateful_sides_the_bytes_are_the_same",
    )
    + _in(_CALLS, "exact_bytes_of_a_result_survive"),
    "2.3.3 response shape": _in(
        _STREAMS,
        "progress_comes_as_events_with_the_clients_token",
        "silence_opens_a_stream_that_is_kept_alive",
        "a_large_answer_arrives_whole_in_either_form",
    ),
    "2.3.3 HeaderMismatch": _in(
        _CALLS, "a_stateful_clients_call_gets_the_headers_a_stateless_upstream_wants"
    )
    + _in(_ROWS, "an_upstream_that_disputes_its_headers_is_asked_twice_at_most"),
    # While a call runs
    "2.3.4 progress": _in(
        _CELLS, "progress_arrives_while_the_call_runs_under_the_clients_own_token"
    )
    + _in(_ACROSS, "progress_rises_over_all_rounds_and_comes_by_the_clients_token")
    + _in(
        "virtualmcp/test_endpoint_messages",
        "progress_only_rises_and_only_under_a_living_token",
    ),
    "2.3.4 logging": _in(_CELLS, "log_messages_reach_the_client_that_wants_them")
    + _in(_LEGACY, "log_messages_reach_only_the_calls_that_want_them")
    + _in(_MODERN, "log_messages_are_passed_on_from_the_wanted_level_up"),
    "2.3.4 cancellation": _in(_CELLS, "a_cancelled_call_is_cancelled_upstream_within_a_second")
    + _in(_ACROSS, "cancelling_on_another_node_takes_the_question_back_and_ends_the_call"),
    "2.3.4 dropped connection": _in(_STREAMS, "a_stateless_client_that_hangs_up_cancels_its_call")
    + _in(_RESUMED, "a_dropped_call_goes_on_and_is_resumed"),
    "2.3.4 pending question": _in(
        _ACROSS,
        "cancelling_on_another_node_takes_the_question_back_and_ends_the_call",
        "a_call_nobody_comes_back_to_is_taken_back_at_the_upstream",
    ),
    "2.3.4 time limits": _in(
        _MODERN,
        "a_call_without_an_answer_ends_at_its_deadline",
        "progress_keeps_a_call_alive_but_not_beyond_the_hard_limit",
    )
    + _in(
        "upstreams/test_mcp_client_questions",
        "thinking_about_a_question_does_not_use_up_the_calls_time",
    ),
    # Questions
    "2.3.5 each cell": _in(
        _ACROSS,
        "form_page_sampling_and_roots_are_asked_at_once_and_answered_on_another_node",
        "round_follows_round_and_the_tool_runs_once",
        "a_person_may_decline",
    ),
    "2.3.5 elicitationId": _in(_ACROSS, "a_stateful_client_hears_that_the_page_it_opened_is_done")
    + _in(_ROWS, "the_id_of_a_page_to_open_is_made_for_stateful_clients_and_dropped_for_others"),
    "2.3.5 choices": _in(_ACROSS, "older_revisions_are_asked_in_the_words_they_know"),
    "2.3.5 sampling": _in(_ACROSS, "older_revisions_are_asked_in_the_words_they_know")
    + _in(_ROWS, "sampling_of_several_blocks_is_split_for_older_clients_and_tools_are_refused"),
    "2.3.5 oldest revision": _in(
        _ACROSS, "the_oldest_revision_has_no_elicitation_whatever_the_client_declares"
    ),
    "2.3.5 outside of a call": _in(
        "virtualmcp/test_session_questions",
        "what_is_asked_while_a_call_runs_goes_to_the_call",
        "outside_of_calls_a_client_is_asked_on_its_own_stream",
        "a_client_whose_stream_is_on_another_node_is_asked_there",
        "of_two_sessions_the_one_with_a_stream_is_asked_and_of_two_streams_none",
        "nobody_is_asked_who_does_not_listen_or_is_stateless",
        "a_question_outlives_a_broken_stream_and_is_asked_once",
        "a_question_ends_with_the_client",
    )
    + _in(
        "journeys/test_official_clients_asked_apart",
        "an_official_client_answers_what_comes_on_the_upstreams_own_stream",
    )
    + _in(_CHANGES, "pings_are_answered_and_questions_refused_outside_of_calls"),
    # Changes
    "2.3.6 streams": _in(_NOTICES, "a_changed_list_and_an_updated_resource_are_told")
    + _in(
        _CHANGES,
        "one_stream_serves_everybody_with_the_same_credential",
        "stateful_sessions_are_listened_to_apart",
        "the_old_stream_stays_until_the_new_one_is_acknowledged",
    ),
    "2.3.6 acknowledgement": _in(
        _NOTICES,
        "an_acknowledgement_comes_first_and_names_only_what_is_honoured",
        "an_upstream_that_can_not_be_asked_keeps_no_stream_open",
    ),
    "2.3.6 subscriptionId": _in(
        _NOTICES,
        "a_changed_list_and_an_updated_resource_are_told",
        "an_acknowledgement_comes_first_and_names_only_what_is_honoured",
    ),
    "2.3.6 one stream of several": _in(
        _NOTICES,
        "of_several_get_streams_one_gets_each_notice",
        "who_comes_back_to_a_get_stream_is_told_that_anything_may_have_changed",
    ),
    "2.3.6 parts of a resource": _in(_CHANGES, "a_part_of_a_resource_belongs_to_it")
    + _in(_NOTICES, "uris_of_several_upstreams_are_told_by_their_public_names"),
    "2.3.6 after a break": _in(_CHANGES, "after_a_break_everything_is_said_to_have_changed"),
    "2.3.6 draining": _in(_NOTICES, "a_process_that_stops_ends_its_streams_as_their_revision_says"),
    # Sessions
    "2.3.7 client session": _in(
        "virtualmcp/test_era_in",
        "any_node_opens_what_another_one_sealed",
        "a_session_of_another_server_person_or_client_is_unknown",
    )
    + _in(_NODES, "a_session_expires_on_every_process_and_is_its_persons_alone_on_each"),
    "2.3.7 upstream session": _in(
        _LEGACY,
        "idle_sessions_and_all_sessions_at_the_end_are_deleted",
        "the_least_recently_used_session_makes_room",
    )
    + _in(
        _SHARED,
        "what_an_upstream_keeps_in_its_session_is_there_whichever_process_is_met",
        "processes_that_begin_at_the_same_moment_open_one_session",
        "a_session_outlives_the_process_that_opened_it",
        "a_process_that_stops_leaves_a_session_to_those_who_use_it",
    ),
    "2.3.7 client resumes": _in(
        _RESUMED,
        "the_answer_waits_for_a_client_that_comes_late_on_any_process",
        "what_nobody_keeps_ends_with_an_error_for_the_call",
    )
    + _in(_NODES, "a_call_that_was_cut_off_is_resumed_on_the_other_process"),
    "2.3.7 gateway resumes": _in(
        _LEGACY,
        "a_stream_the_upstream_ends_early_is_resumed_from_its_last_event",
        "resuming_has_an_end",
    )
    + _in(
        "journeys/test_death_of_a_holder",
        "a_call_that_asked_nothing_goes_on_elsewhere_when_its_process_dies",
        "a_call_whose_stream_the_upstream_no_longer_has_ends_with_what_is_known",
    ),
    "2.3.7 DELETE": _in(_SESSIONS, "an_ended_session_is_gone", "ending_a_session_needs_its_owner")
    + _in(_RESUMED, "delete_ends_the_calls_of_a_session_that_nobody_reads")
    + _in("virtualmcp/test_session_scope", "what_an_upstream_remembers_is_one_client_sessions_own")
    + _in(_SHARED, "the_upstream_is_told_once_that_a_clients_session_is_over"),
    # Tasks
    "2.3.8 stateful upstream": _in(
        _TASKS,
        "a_tool_of_a_stateful_server_that_needs_a_task_is_one_long_call",
        "a_failed_task_of_a_stateful_server_is_the_calls_error",
        "a_task_asks_its_question_while_the_one_long_call_runs",
    )
    + _in(_NODES, "a_task_that_asks_outlives_the_process_that_drove_it_or_is_cancelled"),
    "2.3.8 stateful client": _in(
        _TASKS,
        "a_task_that_nobody_asked_for_is_seen_to_its_end_with_progress",
        "the_extension_is_promised_to_stateless_clients_only",
    ),
    "2.3.8 relayed": _in(
        _TASKS,
        "a_task_is_made_looked_at_and_ended_under_a_sealed_id",
        "questions_of_a_task_are_answered_by_update_under_the_upstreams_own_keys",
        "a_task_is_its_makers_alone",
    ),
    "2.3.8 notices": _in(
        "virtualmcp/test_endpoint_tasks",
        "what_becomes_of_tasks_is_told_under_the_clients_ids_and_names",
        "an_upstream_that_tells_nothing_of_tasks_is_not_promised",
    ),
    "2.3.8 task-only tools": _in(
        "virtualmcp/test_endpoint_tasks",
        "tools_that_run_as_a_task_only_are_listed_for_who_takes_tasks",
    )
    + _in(_TASKS, "a_client_without_the_extension_gets_the_missing_capability"),
    # Errors
    "2.3.9 header mismatch": _in(
        "virtualmcp/test_wire_validation",
        "a_mirrored_header_that_says_something_else_is_a_mismatch",
    ),
    "2.3.9 version": _in(
        "virtualmcp/test_wire_validation",
        "an_unknown_revision_is_answered_with_the_known_ones",
    ),
    "2.3.9 missing _meta": _in(
        "virtualmcp/test_wire_validation",
        "a_stateless_request_with_incomplete_meta_has_invalid_params",
    ),
    "2.3.9 missing capability": _in(
        _CALLS,
        "a_missing_capability_is_told_to_a_stateless_client_as_such",
        "a_stateful_client_that_cannot_be_asked_gets_a_clear_error",
    ),
    "2.3.9 unknown method": _in(_CALLS, "an_unknown_method_has_the_status_of_the_era"),
    "2.3.9 unknown tool": _in(_CALLS, "a_filtered_tool_is_as_unknown_as_one_that_does_not_exist"),
    "2.3.9 unknown resource": _in(
        _CALLS,
        "a_resource_of_nobody_is_not_found_in_the_code_of_the_era",
        "an_upstreams_not_found_has_the_code_of_the_clients_era",
    ),
    "2.3.9 application error": _in(
        _CALLS,
        "codes_of_upstream_errors_are_those_of_the_clients_era",
        "an_aggregate_says_whose_error_it_is_and_a_single_upstream_does_not",
    ),
    "2.3.9 upstream's version or header": _in(
        _CALLS, "codes_of_upstream_errors_are_those_of_the_clients_era"
    )
    + _in(_ROWS, "an_upstream_that_disputes_its_headers_is_asked_twice_at_most"),
    "2.3.9 upstream 401": _in(
        _CALLS,
        "an_unconnected_account_becomes_a_link_in_text",
        "an_unconnected_account_becomes_an_url_error_for_2025_11_25",
        "a_stateless_client_is_asked_to_open_the_page_and_then_calls_again",
    ),
    "2.3.9 upstream 403": _in(_CALLS, "a_refused_personal_account_leads_to_the_connect_page"),
    "2.3.9 upstream -32042": _in(
        _CALLS, "an_upstreams_own_page_to_open_takes_the_form_the_client_knows"
    ),
    "2.3.9 upstream busy": _in(_ROWS, "a_call_that_an_upstream_may_have_begun_is_not_made_again"),
    "2.3.9 upstream dead": _in(
        _CALLS,
        "a_dead_upstream_is_named_quickly_with_what_to_do",
        "failures_say_what_happened_and_what_to_do",
    ),
    "2.3.9 own token": _in(
        "virtualmcp/test_endpoint_gate",
        "without_a_token_a_client_is_told_where_to_authorize",
        "a_token_of_another_server_is_refused_with_this_ones_challenge",
    ),
    "2.3.9 policy": _in(
        "virtualmcp/test_access_rules",
        "a_tool_for_a_group_is_neither_listed_nor_callable_for_others",
    )
    + _in(
        "virtualmcp/test_step_up",
        "a_tool_that_may_change_something_is_refused_with_one_complete_challenge",
    ),
    "2.3.9 one of several": _in(_LISTS, "a_dead_upstream_is_named_and_the_others_answer"),
    # Constants
    "2.3.10 inbound headers": _in(_CELLS, "the_clients_token_and_headers_never_reach_the_upstream"),
    "2.3.10 Mcp-Param": _in(
        "virtualmcp/test_parameter_headers",
        "what_the_schema_does_not_name_goes_on_to_a_single_upstream_only",
    ),
    "2.3.10 extensions": _in(_OPENING, "a_single_upstream_passes_extensions_and_experiments_on"),
    # The stateful revisions
    "2.3.11 batches": _in(
        _SESSIONS,
        "a_batch_is_served_in_the_one_revision_that_has_them",
        "other_revisions_have_no_batches",
    )
    + _in("upstreams/test_mcp_client_legacy", "servers_of_2025_03_26_may_answer_with_arrays")
    + _in("upstreams/test_change_streams", "several_notices_may_come_in_one_array"),
    "2.3.11 version header": _in(_SESSIONS, "every_stateful_revision_can_list_tools"),
    "2.3.11 elicitation": _in(
        _ACROSS,
        "the_oldest_revision_has_no_elicitation_whatever_the_client_declares",
        "older_revisions_are_asked_in_the_words_they_know",
    ),
    "2.3.11 content": _in(_UP_DOWN, "types_a_client_does_not_know_become_text"),
    "2.3.11 polling": _in(_RESUMED, "older_clients_get_ids_but_no_event_without_data"),
    # Down-conversion
    "2.3.12 outputSchema": _in(_UP_DOWN, "only_output_schemas_that_are_no_objects_are_dropped")
    + _in(_LISTS, "a_stateful_client_gets_no_output_schema_that_is_not_an_objects"),
    "2.3.12 structuredContent": _in(
        _UP_DOWN,
        "structured_content_that_is_no_object_becomes_text_for_stateful_clients",
        "structured_content_that_is_an_object_stays",
    ),
    "2.3.12 links and audio": _in(_UP_DOWN, "types_a_client_does_not_know_become_text"),
    "2.3.12 x-mcp-header": _in(
        _ROWS, "a_tool_with_bad_header_annotations_is_left_out_where_they_would_count"
    ),
    "2.3.12 _meta": _in(
        _UP_DOWN, "an_upstreams_signature_is_replaced_and_its_other_meta_keys_stay"
    ),
}

NO_PROOF: dict[str, str] = {}
