"""Which tests prove which requirement of the protocol.

The letters are the gateway's roles: a MCP server, b MCP client, c protected resource, d
authorization server, e OAuth client; 2.x is the bridge between the revisions, 3.x aggregation.
``MAP`` names the tests, ``NO_PROOF`` says why none can be named. ``test_maps`` and
``test_protocol_map`` keep both complete.
"""


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(f"tests/{file}.py::test_{test}" for test in tests)


_CELLS = "journeys/test_cells"
_ANSWERS = "virtualmcp/test_endpoint_answers"
_OVER_NODES = "journeys/test_questions_over_nodes"
_SUITE = _in(
    "conformance/test_official_suite",
    "through_the_gateway_everything_passes_but_what_the_baseline_names",
)
_AS_CLIENT = _in("conformance/test_client_scenarios", "the_gateway_passes_as_client")
_AS_OAUTH_CLIENT = _in(
    "conformance/test_oauth_client_scenarios", "the_gateway_passes_as_oauth_client"
)
_PLAIN = _in(
    "virtualmcp/test_differential",
    "answers_and_what_the_upstream_sees_are_equal_but_for_what_is_documented",
)

MAP: dict[str, tuple[str, ...]] = {
    # (a) MCP server to the client
    "a1": _in("virtualmcp/test_endpoint_sessions", "an_answer_repeats_the_id")
    + _in(_ANSWERS, "a_stateless_answer_repeats_the_id")
    + _in("virtualmcp/test_wire_messages", "an_id_is_kept_byte_for_byte")
    + _in("virtualmcp/test_endpoint_sessions", "notifications_are_accepted_and_go_nowhere"),
    "a2": _in("virtualmcp/test_wire_messages", "what_is_not_json_or_too_deep_is_a_parse_error")
    + _in("virtualmcp/test_endpoint_gate", "what_is_no_message_is_answered_as_json_rpc")
    + _in(_ANSWERS, "answers_are_utf_8_in_either_form"),
    # Of every answer to a stateless client tests/virtualmcp/wire_client.py asserts a3, a4, a7
    # and a21 as well, in whichever test it is sent.
    "a3": _in(
        _ANSWERS,
        "every_result_is_typed_signed_and_hinted_where_it_can_be_kept",
        "a_stateful_client_gets_none_of_the_members_of_the_other_era",
    )
    + _in(
        "virtualmcp/test_lists",
        "a_stateless_list_is_typed_hinted_and_signed_by_the_gateway",
        "a_stateful_list_has_none_of_that",
    )
    + _in("virtualmcp/test_tasks", "a_task_that_nobody_asked_for_is_seen_to_its_end_with_progress"),
    "a4": _in("virtualmcp/test_calls", "codes_of_upstream_errors_are_those_of_the_clients_era")
    + _PLAIN,
    "a5": _in(
        "virtualmcp/test_wire_validation",
        "a_stateless_request_with_incomplete_meta_has_invalid_params",
    ),
    "a6": _in(
        "virtualmcp/test_calls",
        "a_missing_capability_is_told_to_a_stateless_client_as_such",
    )
    + _in("virtualmcp/test_questions_across_eras", "a_client_is_asked_only_what_it_declared"),
    "a7": _in(_ANSWERS, "every_result_is_typed_signed_and_hinted_where_it_can_be_kept")
    + _in(
        "virtualmcp/test_conversion",
        "an_upstreams_signature_is_replaced_and_its_other_meta_keys_stay",
    )
    + _in("virtualmcp/test_lists", "a_stateless_list_is_typed_hinted_and_signed_by_the_gateway"),
    "a8": _in("journeys/test_servers_and_nodes", "two_nodes_on_postgresql_are_one_gateway")
    + _SUITE
    + _in(
        "virtualmcp/test_endpoint_sessions", "a_stateless_request_ignores_a_session_and_gets_none"
    ),
    "a9": _in("virtualmcp/test_mirrored_arguments", "data_that_looks_like_an_annotation_is_none")
    + _in("virtualmcp/test_lists", "a_single_upstream_is_shown_byte_for_byte")
    + _SUITE
    + _AS_CLIENT,
    "a10": _in("virtualmcp/test_era_in", "initialize_is_answered_with_a_revision_both_know")
    + _in("virtualmcp/test_endpoint_sessions", "every_stateful_revision_can_list_tools"),
    # A client is asked on the stream of its own call or on a GET stream that it opened, which
    # clients do after they said that they are initialized; nothing else keeps questions back.
    "a11": _in(
        "virtualmcp/test_endpoint_sessions",
        "initialize_answers_with_the_revision_and_what_is_served",
    ),
    "a12": _in("virtualmcp/test_endpoint_sessions", "discover_tells_what_is_served"),
    "a13": _in(
        "virtualmcp/test_wire_validation",
        "an_unknown_revision_is_answered_with_the_known_ones",
    )
    + _in(
        _ANSWERS,
        "a_revision_nobody_knows_is_refused_wherever_it_is_named",
        "a_session_does_not_act_for_a_revision_nobody_knows",
    ),
    "a14": _in("virtualmcp/test_wire_validation", "a_session_id_makes_a_request_stateful")
    + _in(_ANSWERS, "a_session_goes_on_without_the_header")
    + _in(
        "virtualmcp/test_endpoint_sessions", "a_batch_is_served_in_the_one_revision_that_has_them"
    ),
    "a15": _in(
        "virtualmcp/test_endpoint_gate",
        "what_is_no_post_and_names_no_session_is_405_and_never_404",
    )
    + _in(
        "virtualmcp/test_endpoint_notices",
        "a_changed_list_and_an_updated_resource_are_told",
        "a_get_stream_needs_its_session_and_event_streams",
    ),
    "a16": _in("virtualmcp/test_endpoint_gate", "a_foreign_origin_is_forbidden")
    + _in(_ANSWERS, "a_foreign_page_gets_nothing_by_any_method")
    + _SUITE,
    "a17": _in(
        "virtualmcp/test_endpoint_sessions",
        "notifications_are_accepted_and_go_nowhere",
        "a_stateless_client_may_notify_but_not_respond",
    ),
    "a18": _in(
        "virtualmcp/test_endpoint_streams",
        "a_large_answer_arrives_whole_in_either_form",
        "a_client_that_takes_only_events_gets_the_answer_as_one",
    ),
    "a19": _in(
        "virtualmcp/test_endpoint_resumption",
        "a_stream_begins_with_an_id_to_resume_from",
        "older_clients_get_ids_but_no_event_without_data",
    )
    + _in(
        "virtualmcp/test_endpoint_notices",
        "only_the_newest_clients_get_a_priming_event",
        "a_process_that_stops_ends_its_streams_as_their_revision_says",
    ),
    "a20": _in("virtualmcp/test_lists", "a_notice_during_a_call_has_the_lists_read_again")
    + _in("virtualmcp/test_endpoint_streams", "many_clients_at_once_get_their_own_answers"),
    "a21": _in(
        "virtualmcp/test_endpoint_messages",
        "a_stateless_client_is_asked_by_a_result_and_never_by_a_request",
    ),
    "a22": _in(_CELLS, "a_cancelled_call_is_cancelled_upstream_within_a_second")
    + _in("virtualmcp/test_endpoint_streams", "a_stateless_client_that_hangs_up_cancels_its_call")
    + _in("virtualmcp/test_endpoint_resumption", "a_dropped_call_goes_on_and_is_resumed"),
    "a23": _in(
        "virtualmcp/test_endpoint_streams", "progress_comes_as_events_with_the_clients_token"
    )
    + _in("virtualmcp/test_endpoint_notices", "a_changed_list_and_an_updated_resource_are_told"),
    "a24": _in(_ANSWERS, "a_calls_answer_comes_on_its_own_stream_only")
    + _in(
        "virtualmcp/test_endpoint_notices",
        "of_several_get_streams_one_gets_each_notice",
        "a_notice_on_a_calls_stream_reaches_who_listens",
    ),
    "a25": _in(_ANSWERS, "the_events_of_two_streams_of_a_session_have_ids_of_their_own")
    + _in(
        "virtualmcp/test_endpoint_resumption",
        "a_dropped_call_goes_on_and_is_resumed",
        "a_stream_of_another_session_is_not_replayed",
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "a_call_that_was_cut_off_is_resumed_on_the_other_process",
        "a_stream_whose_process_was_killed_ends_with_an_error_and_is_not_made_again",
    ),
    "a26": _in(
        "virtualmcp/test_endpoint_sessions",
        "an_ended_session_is_gone",
        "a_stateful_request_without_its_session_is_a_400",
        "a_guessed_session_is_unknown",
        "a_stateless_request_ignores_a_session_and_gets_none",
    )
    + _in(_ANSWERS, "a_session_id_is_visible_ascii_and_of_its_session_alone"),
    "a27": _in(_ANSWERS, "only_the_revision_that_has_batches_takes_them")
    + _in("virtualmcp/test_endpoint_gate", "what_is_no_message_is_answered_as_json_rpc")
    + _in(
        "virtualmcp/test_endpoint_sessions",
        "a_batch_is_served_in_the_one_revision_that_has_them",
        "other_revisions_have_no_batches",
    ),
    "a28": _in(
        "virtualmcp/test_endpoint_sessions",
        "a_method_the_stateless_revision_lacks_is_404",
        "a_method_a_stateful_session_lacks_is_an_error_with_status_200",
    ),
    "a29": _in(
        "virtualmcp/test_wire_validation",
        "a_missing_mirrored_header_is_a_mismatch",
        "a_mirrored_header_that_says_something_else_is_a_mismatch",
        "a_name_that_fits_no_header_travels_as_base64",
    ),
    "a30": _in(
        "virtualmcp/test_calls",
        "mirrored_arguments_are_checked_and_made_anew_for_the_upstream",
    )
    + _in(
        "virtualmcp/test_mirrored_arguments",
        "the_first_header_that_does_not_repeat_its_argument_is_named",
    ),
    "a31": _in("virtualmcp/test_mirrored_arguments", "what_the_schema_does_not_name_is_told_apart")
    + _in(
        "virtualmcp/test_parameter_headers",
        "what_the_schema_does_not_name_goes_on_to_a_single_upstream_only",
    ),
    "a32": _in(
        "virtualmcp/test_opening", "capabilities_are_the_union_and_nothing_that_is_not_served"
    )
    + _in("virtualmcp/test_lists", "the_administrators_choice_of_tools_is_all_that_shows")
    + _in(_ANSWERS, "a_tool_that_is_not_offered_is_not_called"),
    "a33": _in(
        "virtualmcp/test_lists",
        "lists_are_equal_after_a_restart",
        "two_nodes_pinning_at_once_agree",
    ),
    "a34": _in("virtualmcp/test_tool_names", "names_of_an_aggregate_are_safe_short_and_unique"),
    "a35": _in(
        "virtualmcp/test_conversion",
        "structured_content_that_is_no_object_becomes_text_for_stateful_clients",
        "structured_content_that_is_an_object_stays",
        "only_output_schemas_that_are_no_objects_are_dropped",
    ),
    "a36": _in("virtualmcp/test_lists", "bad_and_doubled_tools_are_left_out_and_the_good_stay"),
    "a37": _in("virtualmcp/test_calls", "malformed_params_are_refused_before_any_upstream")
    + _in("virtualmcp/test_endpoint_streams", "too_many_calls_of_one_person_wait_their_turn")
    + _in("virtualmcp/test_calls", "secrets_in_what_an_upstream_says_are_redacted")
    + _in(
        "virtualmcp/test_access_rules",
        "a_tool_for_a_group_is_neither_listed_nor_callable_for_others",
    ),
    "a38": _in(
        "virtualmcp/test_calls",
        "a_resource_of_nobody_is_not_found_in_the_code_of_the_era",
        "reading_nothing_is_not_found_for_a_stateless_client",
    )
    + _in(_ANSWERS, "a_resource_of_nobody_is_an_error_of_the_call_and_not_of_http"),
    "a39": _in("virtualmcp/test_lists", "bad_foreign_and_outdated_cursors_are_refused")
    + _in(_ANSWERS, "an_empty_cursor_begins_at_the_beginning"),
    "a40": _in(
        _ANSWERS,
        "every_result_is_typed_signed_and_hinted_where_it_can_be_kept",
        "a_question_in_place_of_a_result_may_not_be_kept",
    )
    + _in(
        "virtualmcp/test_conversion",
        "what_was_read_is_private_and_its_lifetime_within_bounds",
    ),
    "a41": _in(
        "virtualmcp/test_endpoint_streams",
        "a_stateful_client_hears_logs_from_its_level_on",
        "a_stateless_client_hears_logs_only_if_it_asks",
        "a_level_set_at_another_process_holds_where_the_change_feed_stands_still",
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "a_log_level_holds_for_the_very_next_call_at_the_other_process",
    )
    + _in("virtualmcp/test_endpoint_sessions", "a_log_level_must_be_one")
    + _in("virtualmcp/test_calls", "secrets_in_what_an_upstream_logs_meanwhile_are_redacted"),
    "a42": _in(
        "virtualmcp/test_questions_across_eras",
        "progress_rises_over_all_rounds_and_comes_by_the_clients_token",
    )
    + _in(
        "virtualmcp/test_endpoint_messages",
        "progress_only_rises_and_only_under_a_living_token",
    ),
    "a43": _in("virtualmcp/test_questions_across_eras", "a_state_opens_for_its_own_request_alone")
    + _in(_ANSWERS, "what_was_asked_is_answered_for_its_own_request_alone")
    + _in("virtualmcp/test_calls", "questions_about_lists_and_completions_are_not_passed_on"),
    "a44": _in(
        "virtualmcp/test_questions_across_eras",
        "partial_missing_wrong_and_unknown_answers_are_asked_again",
    ),
    "a45": _in(
        "virtualmcp/test_endpoint_notices",
        "an_acknowledgement_comes_first_and_names_only_what_is_honoured",
        "what_was_not_asked_for_is_not_told",
        "a_changed_list_and_an_updated_resource_are_told",
        "a_process_that_stops_ends_its_streams_as_their_revision_says",
    )
    + _SUITE,
    "a46": _in(
        "journeys/test_upstream_trouble",
        "a_connect_link_of_one_person_is_refused_to_another",
    )
    + _in(
        "upstreams/test_connect_attacks",
        "78_the_same_person_in_another_browser_is_refused",
    )
    + _in("virtualmcp/test_questions_across_eras", "a_client_is_asked_only_what_it_declared"),
    "a47": _in(
        "virtualmcp/test_calls", "an_unconnected_account_becomes_an_url_error_for_2025_11_25"
    )
    + _in("virtualmcp/test_endpoint_sessions", "a_session_of_another_person_or_server_is_unknown")
    + _in(
        "virtualmcp/test_questions_across_eras",
        "a_stateful_client_hears_that_the_page_it_opened_is_done",
        "an_answer_counts_only_in_the_session_that_was_asked",
    )
    + _in(
        "virtualmcp/test_session_questions",
        "who_opened_a_page_hears_on_the_stream_that_it_is_done",
    ),
    "a48": _in(
        "virtualmcp/test_questions_across_eras",
        "sampling_with_tools_is_asked_only_of_who_declared_that",
        "older_revisions_are_asked_in_the_words_they_know",
        "a_client_is_asked_only_what_it_declared",
    ),
    "a49": _in("virtualmcp/test_endpoint_sessions", "an_answer_repeats_the_id") + _PLAIN,
    "a50": _in(_ANSWERS, "a_task_is_named_in_its_header")
    + _in(
        "virtualmcp/test_tasks",
        "a_task_is_its_makers_alone",
        "a_client_without_the_extension_gets_the_missing_capability",
        "a_task_is_made_looked_at_and_ended_under_a_sealed_id",
    )
    + _in(
        "virtualmcp/test_endpoint_tasks",
        "a_client_that_did_not_declare_tasks_is_told_what_it_lacks",
    ),
    # (b) MCP client to the upstream. The fakes refuse what breaks b2, b3, b4 and b7: a header that
    # does not equal the body, an incomplete _meta, a request without session or revision.
    "b1": _in(
        "upstreams/test_mcp_client_modern",
        "the_headers_repeat_the_body",
        "every_request_has_an_id_of_its_own",
    )
    + _in("upstreams/test_mcp_client_legacy", "fifty_calls_at_once_open_one_session")
    + _AS_CLIENT,
    "b2": _in(
        "upstreams/test_mcp_client_modern", "params_of_a_legacy_client_get_the_modern_members"
    )
    + _AS_CLIENT,
    "b3": _in("upstreams/test_mcp_client_modern", "names_no_header_can_carry_travel_in_base64")
    + _AS_CLIENT,
    "b4": _in("virtualmcp/test_mirrored_arguments", "headers_repeat_what_is_there_and_nothing_else")
    + _in(
        "virtualmcp/test_calls",
        "a_stateful_clients_call_gets_the_headers_a_stateless_upstream_wants",
    ),
    "b5": _in("virtualmcp/test_lists", "bad_and_doubled_tools_are_left_out_and_the_good_stay")
    + _in(
        "virtualmcp/test_calls",
        "a_stateful_clients_call_gets_the_headers_a_stateless_upstream_wants",
    )
    + _in(
        "virtualmcp/test_bridge_rows",
        "a_tool_with_bad_header_annotations_is_left_out_where_they_would_count",
        "an_upstream_that_disputes_its_headers_is_asked_twice_at_most",
    ),
    "b6": _in(
        "upstreams/test_mcp_client_modern",
        "what_does_not_belong_to_the_call_is_ignored",
        "cancelling_the_task_cancels_the_call_at_the_upstream",
    )
    + _in(
        "virtualmcp/test_endpoint_messages",
        "a_stateless_client_is_asked_by_a_result_and_never_by_a_request",
    ),
    "b7": _in(
        "upstreams/test_mcp_client_legacy",
        "fifty_calls_at_once_open_one_session",
        "a_lost_session_is_opened_anew_and_the_call_made_once_more",
        "idle_sessions_and_all_sessions_at_the_end_are_deleted",
    )
    + _in(
        "journeys/test_sessions_over_nodes",
        "a_session_that_the_upstream_forgot_is_opened_anew_once_for_all",
    ),
    "b8": _in(
        "upstreams/test_mcp_client_legacy",
        "a_stream_the_upstream_ends_early_is_resumed_from_its_last_event",
        "the_pause_an_upstream_asks_for_is_kept_before_resuming",
    )
    + _AS_CLIENT,
    "b9": _in("upstreams/test_mcp_client_modern", "every_request_has_an_id_of_its_own")
    + _in("upstreams/test_mcp_client_legacy", "fifty_calls_at_once_open_one_session")
    + _in(
        "journeys/test_sessions_over_nodes",
        "what_an_upstream_keeps_in_its_session_is_there_whichever_process_is_met",
    ),
    "b10": _in(
        "upstreams/test_upstream_era",
        "servers_are_taken_for_what_they_are",
        "modern_errors_mean_modern",
        "everything_else_leads_to_initialize",
        "another_address_is_another_server",
        "no_verdict_is_remembered_from_refusals_and_failures",
        "an_upstream_that_became_modern_is_found_out_by_the_next_call",
        "an_upstream_that_became_legacy_is_found_out_by_the_next_call",
    ),
    "b11": _in("virtualmcp/test_conversion", "an_absent_type_is_complete_and_others_are_told")
    + _in("virtualmcp/test_calls", "what_is_no_result_is_an_error_of_the_upstream")
    + _in("virtualmcp/test_lists", "what_is_no_list_is_a_failure_and_not_an_empty_list"),
    "b12": _in(
        "virtualmcp/test_calls", "a_question_is_relayed_with_our_seal_in_the_place_of_the_state"
    )
    + _in("virtualmcp/test_questions_across_eras", "round_follows_round_and_the_tool_runs_once")
    + _in(
        "virtualmcp/test_bridge_rows",
        "a_retry_brings_the_upstream_exactly_the_state_it_gave_or_none",
    )
    + _AS_CLIENT,
    # Only lists are kept, and no list is asked for again with answers.
    "b13": _in("virtualmcp/test_lists", "two_peoples_lists_never_mix")
    + _in(
        "virtualmcp/test_bridge_rows",
        "a_list_lives_as_long_as_its_shortest_part_and_belongs_to_one_person",
    ),
    "b14": _in(
        "virtualmcp/test_lists",
        "an_empty_cursor_is_not_the_end_of_an_upstreams_list",
        "all_pages_of_an_upstream_are_read",
    ),
    "b15": _in(
        "upstreams/test_mcp_client_legacy",
        "a_cancelled_call_is_cancelled_at_the_upstream_within_a_second",
        "an_opening_that_nobody_waits_for_any_more_is_not_cancelled",
    )
    + _in(
        "upstreams/test_mcp_client_modern",
        "cancelling_the_task_cancels_the_call_at_the_upstream",
    )
    + _in("virtualmcp/test_tasks", "who_cancels_the_call_cancels_the_task"),
    "b16": _in(
        "upstreams/test_mcp_client_modern",
        "a_call_without_an_answer_ends_at_its_deadline",
        "an_opening_without_an_answer_ends_at_its_deadline",
        "progress_keeps_a_call_alive_but_not_beyond_the_hard_limit",
    )
    + _in("upstreams/test_mcp_client_legacy", "a_call_that_takes_too_long_is_cancelled_too")
    + _in("virtualmcp/test_lists", "a_hanging_upstream_holds_nobody_up_beyond_its_deadline"),
    "b17": _in(
        "upstreams/test_mcp_client_modern",
        "a_notice_that_nobody_can_read_costs_no_result",
        "a_progress_token_is_replaced_and_nothing_else_changed",
        "every_request_has_an_id_of_its_own",
    ),
    # Structured results are passed on as they are: the client validates them against the schema
    # that it was shown, and the gateway changes neither. What is called is in the call log.
    "b18": _in("virtualmcp/test_endpoint_streams", "how_calls_ended_is_recorded")
    + _in("virtualmcp/test_step_up", "one_wording_in_use_that_does_not_say_so_is_enough")
    + _in("virtualmcp/test_step_up", "the_administrators_word_goes_before_the_upstreams")
    + _in("virtualmcp/test_definitions", "a_change_of_anything_a_model_or_host_reads_counts"),
    "b19": _in(
        "virtualmcp/test_calls",
        "an_upstreams_not_found_has_the_code_of_the_clients_era",
        "codes_of_upstream_errors_are_those_of_the_clients_era",
    ),
    "b20": _in(
        "virtualmcp/test_icons",
        "only_icons_a_host_may_load_are_passed_on",
        "an_icon_is_fetched_once_without_credentials_and_served_harmlessly",
        "what_is_no_picture_is_not_served_and_not_asked_for_again",
    ),
    "b21": _in("upstreams/test_mcp_client_legacy", "exactly_what_the_client_can_do_is_declared")
    + _in("upstreams/test_mcp_client_modern", "params_of_a_legacy_client_get_the_modern_members")
    + _in("virtualmcp/test_questions_across_eras", "a_client_is_asked_only_what_it_declared"),
    "b22": _in(
        "upstreams/test_mcp_client_questions",
        "a_ping_of_the_upstream_is_answered_while_a_call_runs",
    )
    + _in(
        "upstreams/test_change_streams", "pings_are_answered_and_questions_refused_outside_of_calls"
    ),
    "b23": _in(
        "upstreams/test_change_streams",
        "only_what_the_upstream_agrees_to_is_honoured",
        "after_a_break_everything_is_said_to_have_changed",
    ),
    # The upstream's poll interval is kept between a tenth of a second and 15 seconds, so that the
    # client goes on hearing of progress.
    "b24": _in(
        "virtualmcp/test_tasks",
        "the_pause_a_task_asks_for_is_kept",
        "who_cancels_the_call_cancels_the_task",
        "a_tool_of_a_stateful_server_that_needs_a_task_is_one_long_call",
        "a_task_that_takes_too_long_is_cancelled_and_said_so",
    ),
    # (c) Protected resource
    "c1": _in("oauthserver/test_discovery", "a_resource_describes_itself"),
    "c2": _in(
        "virtualmcp/test_endpoint_gate", "without_a_token_a_client_is_told_where_to_authorize"
    )
    + _in("oauthserver/test_discovery", "a_resource_describes_itself"),
    "c3": _in("oauthserver/test_bearer_tokens", "a_challenge_names_the_metadata_and_the_scope")
    + _in("virtualmcp/test_endpoint_gate", "without_a_token_a_client_is_told_where_to_authorize"),
    "c4": _in(
        "virtualmcp/test_endpoint_gate",
        "a_token_in_the_query_or_a_cookie_is_none",
        "no_session_stands_in_for_a_token",
    ),
    "c5": _in(
        "virtualmcp/test_endpoint_gate",
        "no_session_stands_in_for_a_token",
        "a_value_that_is_no_valid_token_is_refused",
        "a_token_of_another_server_is_refused_with_this_ones_challenge",
    )
    + _in("oauthserver/test_bearer_tokens", "a_token_is_good_for_its_own_resource_only"),
    "c6": _in(_CELLS, "the_clients_token_and_headers_never_reach_the_upstream"),
    "c7": _in(
        "virtualmcp/test_step_up",
        "a_tool_that_may_change_something_is_refused_with_one_complete_challenge",
    ),
    "c8": (
        *_in(
            "virtualmcp/test_step_up",
            "a_tool_that_may_change_something_is_refused_with_one_complete_challenge",
        ),
        *_in(
            "journeys/test_step_up",
            "a_client_is_refused_authorizes_for_more_and_calls",
            "chatgpt_reads_the_challenge_in_the_result_and_goes_on",
        ),
    ),
    # Every token holds mcp:tools, whatever else it holds (``scopes.granted``).
    "c9": _in("virtualmcp/test_step_up", "the_wider_token_calls_and_lists_are_the_same_for_both"),
    "c10": _in("oauthserver/test_discovery", "a_resource_describes_itself")
    + _in("virtualmcp/test_endpoint_gate", "without_a_token_a_client_is_told_where_to_authorize")
    + _in(
        "virtualmcp/test_step_up",
        "a_tool_that_may_change_something_is_refused_with_one_complete_challenge",
    ),
    "c11": _in(
        "virtualmcp/test_endpoint_sessions",
        "a_session_of_another_person_or_server_is_unknown",
        "ending_a_session_needs_its_owner",
    )
    + _in("virtualmcp/test_endpoint_gate", "no_session_stands_in_for_a_token")
    + _in(_ANSWERS, "a_session_id_is_visible_ascii_and_of_its_session_alone"),
    "c12": _in("virtualmcp/test_endpoint_gate", "a_trailing_slash_is_the_same_server")
    + _in("oauthserver/test_discovery", "a_resource_describes_itself")
    + _in("oauthserver/test_authorize", "a_trailing_slash_names_the_same_resource"),
    # (d) Authorization server
    "d1": _in("oauthserver/test_client_authentication", "the_whole_flow_with_a_secret")
    + _in("oauthserver/test_authorization_codes", "a_code_becomes_tokens_for_one_resource"),
    "d2": _in("oauthserver/test_discovery", "the_server_describes_itself_the_same_everywhere"),
    "d3": _in("oauthserver/test_discovery", "the_server_describes_itself_the_same_everywhere")
    + _in(
        "oauthserver/test_authorize",
        "a_client_with_a_secret_needs_pkce_as_well",
        "other_mistakes_go_to_the_client_with_state_and_issuer",
    )
    + _in("oauthserver/test_authorization_codes", "a_wrong_verifier_leaves_the_code_to_its_owner"),
    "d4": _in(
        "oauthserver/test_client_metadata_documents",
        "real_clients_reach_the_page_and_get_a_code",
        "clients_that_offer_none_go_all_the_way_without_a_secret",
    )
    + _in("oauthserver/test_discovery", "the_server_describes_itself_the_same_everywhere"),
    "d5": _in(
        "oauthserver/test_client_metadata_documents",
        "odd_json_is_refused",
        "only_json_is_read_as_json",
        "a_removed_redirect_stops_working_after_the_lifetime",
        "the_document_must_name_exactly_its_own_url",
        "a_document_the_gateway_cannot_honour_is_refused_whole",
    ),
    # Logos are neither fetched nor shown.
    "d6": _in(
        "oauthserver/test_client_metadata_documents",
        "only_a_plain_answer_holds_a_document",
        "a_document_is_kept_as_long_as_its_host_says",
        "a_document_at_an_address_inside_is_not_connected_to",
        "redirects_are_never_followed",
        "only_public_addresses_are_connected_to",
        "lifetimes_have_a_floor_and_a_ceiling",
        "a_broken_document_is_not_used_in_place_of_the_good_one",
        "secret_methods_are_dropped_where_something_better_is_offered",
        "a_document_may_have_five_kilobytes",
        "and_not_a_byte_more",
        "a_malformed_url_is_refused_without_looking_anywhere",
    ),
    "d7": _in(
        "consent/test_consent_page",
        "page_says_who_asks_for_what_as_whom_and_where_the_answer_goes",
        "where_the_answer_goes_is_named_beside_who_asks",
        "client_on_this_computer_is_named_as_such",
    ),
    "d8": _in(
        "oauthserver/test_client_registration",
        "real_clients_get_a_complete_answer",
        "one_address_cannot_register_without_end",
    ),
    "d9": _in(
        "oauthserver/test_authorize",
        "only_the_port_of_a_loopback_redirect_may_differ",
        "a_redirect_uri_that_is_not_registered_is_told_here",
    )
    + _in(
        "oauthserver/test_authorization_codes",
        "another_redirect_uri_is_refused_without_using_the_code",
    )
    + _in(
        "oauthserver/test_client_registration",
        "a_harmful_redirect_uri_is_refused_and_nothing_stored",
    ),
    # TLS itself ends at the operator's proxy.
    "d10": _in("gateway_site/test_configuration_checks", "each_mistake_is_named_with_a_hint")
    + _in(
        "oauthserver/test_guesses_and_outages",
        "1_every_address_in_the_metadata_is_of_the_issuers_own_origin",
    ),
    "d11": _in(
        "oauthserver/test_refresh_tokens",
        "a_refresh_rotates_both_tokens_and_keeps_resource_and_scope",
        "a_refresh_token_used_after_its_successor_ends_the_family",
        "a_lost_answer_is_given_again",
    ),
    "d12": _in(
        "oauthserver/test_authorize",
        "allowing_redirects_with_code_state_and_issuer",
        "denying_says_so_with_state_and_issuer",
        "other_mistakes_go_to_the_client_with_state_and_issuer",
    )
    + _in("oauthserver/test_discovery", "the_server_describes_itself_the_same_everywhere"),
    "d13": _in(
        "oauthserver/test_authorize",
        "two_resources_are_refused",
        "other_mistakes_go_to_the_client_with_state_and_issuer",
        "without_a_resource_the_person_picks",
        "without_a_resource_the_only_one_is_taken",
    )
    + _in(
        "oauthserver/test_authorization_codes",
        "the_token_request_cannot_bring_another_resource",
    ),
    # An upstream is connected from this page, by the person's own press of a button on it.
    "d14": _in(
        "consent/test_consent_page",
        "page_says_who_asks_for_what_as_whom_and_where_the_answer_goes",
        "connect_buttons_bring_the_person_back_to_this_very_request",
        "earlier_yes_never_skips_the_page",
        "approval_needs_the_csrf_token",
        "page_is_not_stored_framed_or_told_to_others",
    )
    + _in(
        "upstreams/test_connect_flow",
        "nothing_begins_for_a_person_who_is_not_signed_in",
        "the_page_begins_nothing_by_being_looked_at",
        "a_cross_site_post_is_refused",
    ),
    "d15": _in(
        "upstreams/test_connect_attacks",
        "79_an_answer_is_used_once",
        "79_a_late_answer_is_refused",
        "a_binding_cookie_of_ones_own_making_is_refused",
    )
    + _in("gateway_site/test_people_sessions", "89_cookies_are_bound_to_the_host_over_https")
    + _in(
        "upstreams/test_connect_flow",
        "89_the_binding_cookie_is_kept_from_scripts_and_other_sites",
    )
    + _in(
        "consent/test_consent_page",
        "ticket_from_another_browser_is_refused",
        "ticket_for_another_request_is_refused",
        "ticket_ends_after_ten_minutes",
        "ticket_counts_once",
    ),
    "d16": _in(
        "oauthserver/test_authorize",
        "nothing_a_client_sends_skips_the_page",
        "nobody_is_led_on_to_a_client_that_only_registered_itself",
    ),
    "d17": _in(
        "oauthserver/test_authorization_codes",
        "unknown_scopes_are_dropped_and_never_an_error",
        "a_client_without_the_refresh_grant_gets_no_refresh_token",
    ),
    # Where the company vouches for a resource, the token holds mcp:tools as every token does.
    "d18": _in(
        "oauthserver/test_direct_grants",
        "an_assertion_is_never_written_down",
        "the_company_vouches_and_no_page_is_shown",
        "an_assertion_with_anything_wrong_gives_nothing",
        "the_type_is_exact",
        "other_keys_and_algorithms_are_refused",
        "an_assertion_works_once",
        "the_request_may_repeat_the_resource_only",
        "scopes_are_what_both_name",
        "it_is_advertised_only_while_somebody_is_trusted",
    )
    + _in(
        "gateway_site/test_vouched_people",
        "a_person_is_found_by_the_claim_that_is_the_same_for_every_application",
        "who_is_not_named_exactly_is_not_found",
        "the_gateways_own_name_for_a_person_comes_first",
    ),
    # Secrets are allowed by the extension; service accounts here have keys only.
    "d19": _in(
        "oauthserver/test_direct_grants",
        "other_clients_and_other_keys_get_nothing",
        "a_service_account_gets_a_token_for_what_was_chosen",
    ),
    # (e) OAuth client to upstream authorization servers
    "e1": _in(
        "upstreams/test_oauth_discovery",
        "metadata_is_found_at_every_place",
        "without_a_challenge_header_the_path_comes_before_the_root",
    )
    + _in("upstreams/test_oauth_challenge", "the_bearer_challenge_is_found")
    + _AS_OAUTH_CLIENT,
    "e2": _in(
        "upstreams/test_oauth_discovery",
        "137_metadata_of_another_resource_is_refused",
        "137_the_resource_must_be_the_address_or_a_parent_of_it",
    ),
    "e3": _in(
        "upstreams/test_oauth_discovery",
        "an_issuer_with_a_path_is_found_in_the_order_of_the_specification",
        "the_issuer_must_be_identical",
    ),
    "e4": _in("upstreams/test_oauth_discovery", "146_without_s256_nothing_is_begun_unless_allowed")
    + _in(
        "upstreams/test_connect_flow",
        "the_request_to_the_authorization_server_holds_what_the_specification_wants",
    ),
    "e5": _in(
        "upstreams/test_connect_flow",
        "the_request_to_the_authorization_server_holds_what_the_specification_wants",
        "the_resource_is_sent_with_every_token_request_unless_switched_off",
    )
    + _in("upstreams/test_token_refresh", "a_renewed_token_is_stored_before_it_is_used"),
    "e6": _in(
        "upstreams/test_connect_attacks",
        "80_an_answer_of_another_issuer_is_refused",
        "80_an_issuer_that_is_wrong_though_not_announced_is_refused",
        "80_an_error_of_another_issuer_shows_none_of_its_text",
    )
    + _AS_OAUTH_CLIENT,
    "e7": _in("upstreams/test_connect_attacks", "79_a_state_that_is_not_ours_is_refused"),
    "e8": _in(
        "upstreams/test_connect_flow",
        "scopes_come_from_the_administrator_the_challenge_or_the_metadata",
    )
    + _in("upstreams/test_credentials", "a_step_up_asks_for_both_scopes_and_not_in_circles")
    + _AS_OAUTH_CLIENT,
    "e9": _in(
        "upstreams/test_oauth_registration",
        "what_the_administrator_entered_comes_before_our_document_and_registering",
        "our_document_is_used_where_the_server_takes_it",
        "where_nothing_works_the_administrator_learns_what_to_enter",
        "registration_says_what_we_are_and_is_done_once",
    ),
    "e10": _in(
        "upstreams/test_oauth_registration",
        "registration_says_what_we_are_and_is_done_once",
        "a_registration_that_fails_is_told_without_the_servers_text",
    ),
    "e11": _in(
        "upstreams/test_oauth_registration",
        "another_authorization_server_means_another_registration",
        "a_registered_secret_is_never_shown_to_another_server",
    ),
    "e12": _in(
        "upstreams/test_oauth_registration", "our_document_is_used_where_the_server_takes_it"
    )
    + _in(
        "upstreams/test_connect_pages",
        "160_our_client_documents_are_exact_and_hold_no_private_key",
    ),
    "e13": _in("upstreams/test_connect_attacks", "an_upstream_that_moved_meanwhile_gets_no_tokens"),
    "e14": _in(
        "upstreams/test_token_refresh",
        "147_fifty_calls_with_an_expired_token_make_one_refresh",
        "r35_fifty_threads_as_many_nodes_make_one_refresh",
    )
    + _in("upstreams/test_token_vault", "a_secret_copied_to_another_row_does_not_open"),
    "e15": _in(
        "upstreams/test_egress_guard",
        "special_use_addresses_are_refused",
        "every_address_of_a_name_must_pass",
    )
    + _in("upstreams/test_oauth_discovery", "136_a_redirecting_metadata_address_is_not_followed"),
    "e16": _in(
        "upstreams/test_oauth_discovery", "139_an_endpoint_that_is_not_a_plain_address_is_refused"
    ),
    "e17": _in(
        "upstreams/test_oauth_discovery",
        "an_old_server_is_its_own_authorization_server",
        "an_old_server_without_any_document_has_the_default_addresses",
    ),
    # The bridge
    "2.2": _in(
        "virtualmcp/test_wire_validation",
        "initialize_is_stateful_whatever_the_headers_say",
        "a_stateful_request_without_session_is_told_to_open_one",
    )
    + _in(
        "upstreams/test_upstream_era",
        "modern_errors_mean_modern",
        "only_unknown_modern_versions_are_incompatible",
        "no_verdict_is_remembered_from_refusals_and_failures",
        "an_administrators_choice_is_not_questioned",
    ),
    "2.3.1": _in("virtualmcp/test_opening", "a_slow_upstream_does_not_hold_the_opening_up")
    + _in(
        "upstreams/test_mcp_client_legacy",
        "a_session_is_not_shared_between_people_credentials_or_abilities",
    ),
    "2.3.2": _in(_CELLS, "tools_are_listed_and_called_with_everything_upstream_said")
    + _in("virtualmcp/test_lists", "two_peoples_lists_never_mix"),
    "2.3.3": _in("virtualmcp/test_calls", "a_tool_is_called_in_every_cell")
    + _in("virtualmcp/test_calls", "prompts_resources_and_completions_work_in_every_cell")
    + _PLAIN,
    "2.3.4": _in(
        _CELLS,
        "progress_arrives_while_the_call_runs_under_the_clients_own_token",
        "log_messages_reach_the_client_that_wants_them",
        "a_cancelled_call_is_cancelled_upstream_within_a_second",
    ),
    "2.3.5": _in(
        "virtualmcp/test_questions_across_eras",
        "form_page_sampling_and_roots_are_asked_at_once_and_answered_on_another_node",
        "older_revisions_are_asked_in_the_words_they_know",
    ),
    "2.3.6": _in(
        "virtualmcp/test_endpoint_notices",
        "a_changed_list_and_an_updated_resource_are_told",
        "a_list_that_reads_as_before_has_not_changed",
        "an_account_that_is_connected_or_ended_changes_the_persons_lists",
        "an_administrators_choice_is_told_to_who_sees_another_list",
    )
    + _in(
        "upstreams/test_change_streams",
        "one_stream_serves_everybody_with_the_same_credential",
        "the_old_stream_stays_until_the_new_one_is_acknowledged",
    )
    + _in(
        "journeys/test_official_clients",
        "an_official_client_hears_of_changes_at_upstreams_of_both_eras",
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "clients_of_both_eras_on_both_processes_hear_of_a_change",
        "one_process_listens_to_a_stateless_upstream_for_all_until_it_dies",
    )
    + _in(
        "virtualmcp/test_shared_listening",
        "what_the_leader_agreed_to_holds_here_until_it_dies_and_this_process_leads",
        "the_leader_asks_for_what_others_want_until_they_die",
        "without_the_database_each_process_listens_for_itself",
    ),
    "2.3.7": _in(
        "virtualmcp/test_era_in",
        "any_node_opens_what_another_one_sealed",
        "an_ended_session_is_unknown_here_at_once_and_elsewhere_by_the_database",
    )
    + _in(
        "virtualmcp/test_endpoint_resumption",
        "the_answer_waits_for_a_client_that_comes_late_on_any_process",
        "what_nobody_keeps_ends_with_an_error_for_the_call",
        "delete_ends_the_calls_of_a_session_that_nobody_reads",
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "a_session_outlives_its_process_and_ends_everywhere_once_it_is_deleted",
        "a_call_that_was_cut_off_from_daphne_is_resumed_there_and_elsewhere",
    ),
    "2.3.8": _in(
        "virtualmcp/test_tasks",
        "a_task_is_made_looked_at_and_ended_under_a_sealed_id",
        "questions_of_a_task_are_answered_by_update_under_the_upstreams_own_keys",
        "a_tool_of_a_stateful_server_that_needs_a_task_is_one_long_call",
        "the_extension_is_promised_to_stateless_clients_only",
    )
    + _in(
        "virtualmcp/test_endpoint_tasks",
        "what_becomes_of_tasks_is_told_under_the_clients_ids_and_names",
        "only_a_clients_own_tasks_are_honoured",
        "after_a_break_each_task_is_looked_at_once",
        "tools_that_run_as_a_task_only_are_listed_for_who_takes_tasks",
    ),
    "2.3.9": _in(
        "virtualmcp/test_calls",
        "codes_of_upstream_errors_are_those_of_the_clients_era",
        "http_faults_of_an_upstream_are_errors_with_status_200",
        "a_refused_personal_account_leads_to_the_connect_page",
        "an_upstreams_own_page_to_open_takes_the_form_the_client_knows",
        "failures_say_what_happened_and_what_to_do",
        "an_aggregate_says_whose_error_it_is_and_a_single_upstream_does_not",
    )
    + _PLAIN,
    "2.3.10": _in(_CELLS, "the_clients_token_and_headers_never_reach_the_upstream")
    + _in("virtualmcp/test_opening", "a_single_upstream_passes_extensions_and_experiments_on"),
    "2.3.11": _in("virtualmcp/test_endpoint_sessions", "every_stateful_revision_can_list_tools")
    + _in(
        "virtualmcp/test_questions_across_eras",
        "the_oldest_revision_has_no_elicitation_whatever_the_client_declares",
    ),
    "2.3.12": _in(
        "virtualmcp/test_conversion",
        "types_a_client_does_not_know_become_text",
        "structured_content_that_is_no_object_becomes_text_for_stateful_clients",
        "only_output_schemas_that_are_no_objects_are_dropped",
    ),
    "2.4.1": _in(
        "virtualmcp/test_calls", "a_question_is_relayed_with_our_seal_in_the_place_of_the_state"
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "when_the_process_that_holds_calls_is_killed_each_ends_as_promised",
    ),
    "2.4.2": _in(
        "virtualmcp/test_questions_across_eras", "round_follows_round_and_the_tool_runs_once"
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "a_stateful_client_that_comes_back_gets_its_result_or_hears_what_became_of_its_call",
        "a_task_that_asks_outlives_the_process_that_drove_it_or_is_cancelled",
        "a_stream_whose_process_was_killed_ends_with_an_error_and_is_not_made_again",
    ),
    "2.4.3": _in(
        "virtualmcp/test_questions_across_eras",
        "a_retry_that_comes_twice_gets_the_same_outcome_and_nothing_is_posted_twice",
        "a_call_nobody_comes_back_to_is_taken_back_at_the_upstream",
        "only_so_many_calls_are_parked_for_one_person",
    )
    + _in(
        "virtualmcp/test_rerun_calls",
        "a_marked_tool_runs_again_and_its_person_is_asked_nothing_twice",
        "no_other_tool_is_run_again",
        "what_is_asked_in_other_words_is_asked_anew",
    )
    + _in(
        "journeys/test_questions_over_nodes",
        "when_the_process_that_holds_calls_is_killed_each_ends_as_promised",
    )
    + _in(
        "journeys/test_death_of_a_holder",
        "an_answer_that_was_under_way_when_its_process_died_arrives_and_counts_once",
    )
    + _in(
        "journeys/test_drained_holder",
        "a_process_that_is_told_to_stop_hands_over_what_another_one_can_go_on_with",
        "what_cannot_be_handed_over_is_waited_for_and_then_ends_honestly",
        "a_retry_that_waits_in_a_process_until_it_stops_finds_its_call_elsewhere",
    ),
    "2.4.4": _in(
        "journeys/test_questions_over_nodes",
        "questions_and_cancellation_work_whichever_node_each_request_meets",
        "when_the_process_that_holds_calls_is_killed_each_ends_as_promised",
        "a_stateful_client_that_comes_back_gets_its_result_or_hears_what_became_of_its_call",
        "a_stream_whose_process_was_killed_ends_with_an_error_and_is_not_made_again",
    )
    + _in(
        "journeys/test_death_of_a_holder",
        "a_call_that_asked_nothing_goes_on_elsewhere_when_its_process_dies",
    ),
    # Row by row of the table: what the gateway keeps, and what becomes of it when a node dies.
    # S1: a client's facts, sealed in the id of its session.
    "2.5": _in(
        "virtualmcp/test_sealed_state",
        "a_seal_is_short_visible_ascii_and_never_the_same_twice",
        "another_owner_or_purpose_can_not_open_it",
        "no_changed_character_is_accepted",
        "a_rotated_key_opens_what_it_sealed_until_it_is_taken_away",
        "it_opens_until_its_time_is_over",
    )
    + _in(_ANSWERS, "a_session_outlives_the_rotation_of_its_key_and_ends_with_the_key")
    + _in(
        "virtualmcp/test_era_in",
        "a_session_id_holds_what_the_client_said",
        "any_node_opens_what_another_one_sealed",
        "a_session_of_another_server_person_or_client_is_unknown",
        "an_ended_session_is_unknown_here_at_once_and_elsewhere_by_the_database",
        "storage_holds_no_session_id",
        # S2, in the database: Redis is not asked for it.
        "the_log_level_is_shared_by_the_nodes",
    )
    + _in(
        _OVER_NODES,
        "a_session_expires_on_every_process_and_is_its_persons_alone_on_each",
        "a_session_outlives_its_process_and_ends_everywhere_once_it_is_deleted",
        # S4 and S5, S7 and S9: who holds a call, its stream and its questions.
        "when_the_process_that_holds_calls_is_killed_each_ends_as_promised",
        "wherever_a_holder_dies_no_tool_runs_twice_and_none_is_lost_without_a_word",
        "questions_and_cancellation_work_whichever_node_each_request_meets",
        # S6.
        "a_call_that_was_cut_off_is_resumed_on_the_other_process",
        # S11.
        "one_process_listens_to_a_stateless_upstream_for_all_until_it_dies",
    )
    # S3.
    + _in(
        "upstreams/test_mcp_client_legacy",
        "a_session_is_not_shared_between_people_credentials_or_abilities",
        "a_lost_session_is_opened_anew_and_the_call_made_once_more",
    )
    # S8.
    + _in(_ANSWERS, "what_was_asked_is_answered_for_its_own_request_alone")
    # S10.
    + _in(
        "virtualmcp/test_lists",
        "lists_are_equal_after_a_restart",
        "the_last_good_list_stands_in_for_a_failing_upstream",
        # S17.
        "bad_foreign_and_outdated_cursors_are_refused",
    )
    + _in(
        "virtualmcp/test_shared_listening",
        "without_the_database_each_process_listens_for_itself",
    )
    # S12.
    + _in("virtualmcp/test_endpoint_messages", "progress_only_rises_and_only_under_a_living_token")
    # S13.
    + _in("virtualmcp/test_tasks", "a_task_is_its_makers_alone")
    # S14.
    + _in(
        "upstreams/test_connect_attacks", "79_an_answer_is_used_once", "79_a_late_answer_is_refused"
    )
    # S15.
    + _in("upstreams/test_token_vault", "old_keys_open_and_the_first_key_seals")
    + _in(
        "upstreams/test_refresh_races",
        "147_fifty_calls_over_two_processes_make_one_refresh_each_round",
        "r36_a_kill_during_a_refresh_loses_only_what_had_not_arrived",
    )
    # S16: where the cache is away, security.md 110 has tokens and registrations come again later.
    + _in(
        "oauthserver/test_direct_grants", "an_assertion_that_cannot_be_noted_as_used_gives_nothing"
    )
    + _in(
        "oauthserver/test_guesses_and_outages",
        "110_a_cache_that_is_down_makes_nobody_throw_a_token_away",
    )
    # S3 and S11.
    + _in(
        "journeys/test_sessions_over_nodes",
        "what_an_upstream_keeps_in_its_session_is_there_whichever_process_is_met",
        "a_process_that_dies_while_it_opens_a_session_is_waited_for_only_a_moment",
        "one_process_holds_the_sessions_stream_and_clients_of_all_hear_by_it",
        "a_question_beside_a_call_meets_its_client_whichever_process_has_the_stream",
    )
    + _in(
        "upstreams/test_session_sharing",
        "while_nothing_can_be_shared_each_process_has_its_own_and_later_they_are_one",
    ),
    # Aggregation
    "3.1": _in("virtualmcp/test_lists", "a_second_upstream_renames_nothing_that_exists") + _PLAIN,
    "3.2.1": _in(
        "virtualmcp/test_lists",
        "several_upstreams_keep_their_order_and_the_first_owner_keeps_the_name",
        "every_new_name_has_its_upstreams_key_where_the_administrator_wants_that",
        "an_upstream_that_adds_a_name_in_use_does_not_take_it_over",
    )
    + _in(
        "virtualmcp/test_name_changes",
        "the_new_name_is_listed_and_both_are_called",
        "no_other_upstream_gets_a_former_name_before_it_is_freed",
        "a_name_that_cannot_be_is_refused_with_the_reason",
        "clients_that_listen_are_told_that_the_list_changed",
    ),
    "3.2.2": _in("virtualmcp/test_tool_names", "names_of_an_aggregate_are_safe_short_and_unique"),
    "3.2.3": _in(
        "virtualmcp/test_tool_names", "every_public_name_leads_back_to_what_it_was_chosen_for"
    ),
    "3.2.4": _in(
        "virtualmcp/test_tool_names",
        "a_bare_name_reaches_its_only_owner_by_a_hidden_alias",
        "a_bare_name_with_two_owners_names_the_candidates",
    )
    + _in(
        "journeys/test_chatgpt",
        "a_tool_name_chatgpt_froze_stays_callable_when_another_upstream_joins",
    ),
    "3.2.5": _in("virtualmcp/test_lists", "lists_are_equal_after_a_restart"),
    "3.2.6": _in(
        "virtualmcp/test_definitions",
        "a_changed_description_raises_one_alert_and_is_served_where_the_policy_says_so",
        "a_changed_tool_is_hidden_and_refused_until_it_is_approved",
        "a_host_that_never_lists_again_can_not_call_what_changed",
        "a_rejected_tool_worded_anew_stays_hidden_until_an_administrator_decides",
    )
    + _in(
        "virtualmcp/test_definition_admin",
        "what_changed_is_shown_before_and_after_and_approved_or_rejected",
    ),
    "3.2.7": _in(
        "virtualmcp/test_calls",
        "public_names_lead_to_their_owner_and_go_out_as_it_knows_them",
    ),
    "3.3": _in(
        "virtualmcp/test_resource_uris",
        "mapping_back_gives_the_same_upstream_and_uri",
        "an_https_uri_with_a_key_in_front_leads_to_that_upstream",
    )
    + _in(
        "virtualmcp/test_result_mapping",
        "links_and_embedded_resources_map_back_to_what_they_were",
        "prompts_questions_and_notices_are_mapped",
    )
    + _in(
        "virtualmcp/test_argument_uris",
        "a_whole_string_that_is_an_address_of_the_called_upstream_is_given_back",
        "arguments_stay_as_they_are_where_nobody_chose_otherwise",
    ),
    "3.4": _in(
        "virtualmcp/test_lists",
        "app_references_are_mapped_alike_in_tools_and_resources",
        "the_domain_of_an_app_is_dropped_and_the_rest_of_its_settings_stay",
        "the_domain_of_an_app_is_made_anew_for_this_servers_address_where_it_is_wanted",
    )
    + _in("virtualmcp/test_result_mapping", "app_references_of_a_result_and_of_tools_agree"),
    "3.5": _in(
        "virtualmcp/test_lists",
        "pages_of_ours_follow_each_other_by_sealed_cursors",
        "bad_foreign_and_outdated_cursors_are_refused",
        "all_pages_of_an_upstream_are_read",
    ),
    "3.6": _in(
        "virtualmcp/test_opening",
        "instructions_begin_with_the_administrators_and_name_each_upstream",
        "capabilities_are_the_union_and_nothing_that_is_not_served",
    )
    + _in(
        "virtualmcp/test_bridge_rows",
        "of_a_completion_a_client_of_several_gets_a_hundred_values",
    )
    + _in(
        "virtualmcp/test_sampling_limits",
        "an_upstream_asks_so_often_and_no_more_whoever_speaks_which_era",
        "an_upstream_asks_for_so_many_tokens_a_day",
        "the_numbers_hold_over_nodes_and_for_each_person_apart",
    )
    + _in(
        "virtualmcp/test_icons",
        "behind_a_shared_url_icons_are_of_the_gateways_own_origin",
        "only_addresses_that_the_gateway_made_are_fetched",
    )
    + _in("virtualmcp/test_calls", "between_stateful_sides_an_aggregate_says_who_asks"),
}

NO_PROOF: dict[str, str] = {
    "2.6": "What cannot be bridged has no test by its nature; what happens instead is in 2.4.",
}
