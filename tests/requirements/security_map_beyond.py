"""Which tests prove the cases of section 4H, the gateway as OAuth client; as ``security_map``."""

_HERE = "tests/upstreams/test_"
_DISCOVERY = f"{_HERE}oauth_discovery.py::test_"
_REFRESH = f"{_HERE}token_refresh.py::test_"
_FETCH = f"{_HERE}http_client.py::test_"
_REPLIES = f"{_HERE}token_replies.py::test_"
_ACTIONS = f"{_HERE}actions.py::test_"
_GUARD = f"{_HERE}egress_guard.py::test_"
_KINDS = f"{_HERE}credential_kinds.py::test_"
_KEYS = f"{_HERE}client_keys.py::test_"

MAP: dict[str, tuple[str, ...]] = {
    "#136": (
        f"{_DISCOVERY}136_a_challenge_leads_to_no_other_place",
        f"{_DISCOVERY}136_a_redirecting_metadata_address_is_not_followed",
    ),
    "#137": (
        f"{_DISCOVERY}137_the_resource_must_be_the_address_or_a_parent_of_it",
        f"{_DISCOVERY}137_metadata_of_another_resource_is_refused",
    ),
    "#139": (f"{_DISCOVERY}139_an_endpoint_that_is_not_a_plain_address_is_refused",),
    "#140": (f"{_DISCOVERY}140_an_endpoint_elsewhere_waits_for_the_administrator",),
    "#142": (
        f"{_FETCH}redirects_are_not_followed",
        f"{_DISCOVERY}136_a_redirecting_metadata_address_is_not_followed",
        f"{_HERE}relay_client_hostile.py::"
        "test_a_redirect_is_not_followed_and_the_credential_not_sent_again",
    ),
    "#143": (
        f"{_DISCOVERY}143_a_document_that_cannot_be_used_is_a_clear_failure",
        f"{_FETCH}answers_end_at_64_kilobytes",
        f"{_FETCH}a_dripping_answer_ends_at_the_total_time",
        f"{_FETCH}encoded_answers_are_refused",
        f"{_FETCH}documents_that_two_programs_could_read_differently_are_refused",
    ),
    "#145": (
        f"{_REPLIES}145_odd_answers_are_clamped",
        f"{_REPLIES}145_hostile_answers_are_refused",
        f"{_HERE}connect_flow.py::test_145_fewer_scopes_are_stored_and_told",
    ),
    "#146": (f"{_DISCOVERY}146_without_s256_nothing_is_begun_unless_allowed",),
    "#147": (
        f"{_REFRESH}147_fifty_calls_with_an_expired_token_make_one_refresh",
        f"{_REFRESH}r35_fifty_threads_as_many_nodes_make_one_refresh",
        f"{_HERE}refresh_races.py::"
        "test_147_fifty_calls_over_two_processes_make_one_refresh_each_round",
    ),
    "#148": (f"{_REFRESH}148_a_refusal_is_not_believed_when_another_node_has_just_renewed",),
    "#149": (
        f"{_REFRESH}149_a_failure_that_may_pass_keeps_the_tokens_and_backs_off",
        f"{_HERE}refresh_survival.py::test_a_call_waits_while_a_flapping_server_comes_back",
    ),
    "#151": (f"{_HERE}credentials.py::test_151_a_fresh_token_that_is_refused_too_ends_the_loop",),
    "#152": (
        f"{_ACTIONS}152_accounts_end_where_the_server_or_client_changes",
        f"{_ACTIONS}152_a_row_changed_behind_our_back_sends_nothing_either",
        f"{_ACTIONS}152_a_shared_credential_stays_with_its_server",
        f"{_KINDS}further_headers_are_sealed_for_their_address_and_cannot_be_the_connections_own",
        f"{_KINDS}the_providers_secret_is_not_sent_to_another_provider",
    ),
    "#154": (
        f"{_HERE}relay_client_together.py::test_every_user_is_seen_with_their_own_token_only",
    ),
    "#155": (
        f"{_KINDS}155_a_shared_account_is_connected_by_an_administrator_and_used_by_everybody",
    ),
    "#157": (
        f"{_FETCH}the_connection_goes_to_the_checked_address_and_the_name_stays",
        f"{_GUARD}rules_are_applied_to_cached_answers_too",
        f"{_GUARD}every_address_of_a_name_must_pass",
    ),
    "#158": (f"{_FETCH}a_document_is_fetched_without_cookies_encodings_or_proxies",),
    "#160": (
        f"{_HERE}connect_pages.py::test_160_our_client_documents_are_exact_and_hold_no_private_key",
        f"{_KEYS}a_key_is_published_before_it_signs_and_after_it_did",
    ),
}

CASES = frozenset(
    f"#{number}"
    for number in (
        *(136, 137, 139, 140, 142, 143, 145, 146, 147, 148, 149),
        *(151, 152, 154, 155, 157, 158, 160),
    )
)
