"""Which tests prove which case of the security catalogue (``#n``), by section.

A case may need several tests; a test may prove several cases. ``test_maps`` checks both ways.
"""

_AS = "tests/oauthserver/test_"
_CONSENT = "tests/consent/test_"
_BROWSER = "tests/browser/test_"
_CONNECT = "tests/upstreams/test_connect_"
_FOREIGN = "tests/virtualmcp/test_foreign_credentials.py::test_"
_ENDS = "tests/virtualmcp/test_access_that_ends.py::test_"
_WHOSE = f"{_CONNECT}whose_account.py::test_"
_STREAMS = "tests/virtualmcp/test_endpoint_streams.py::test_"
_NOTICES = "tests/virtualmcp/test_endpoint_notices.py::test_"
_GATE = "tests/virtualmcp/test_endpoint_gate.py::test_"
_SESSIONS = "tests/virtualmcp/test_endpoint_sessions.py::test_"
_ERA = "tests/virtualmcp/test_era_in.py::test_"

_DISCOVERY = f"{_AS}discovery.py::test_"
_REGISTER = f"{_AS}client_registration.py::test_"
_MANAGE = f"{_AS}client_configuration.py::test_"
_DOCUMENTS = f"{_AS}client_metadata_documents.py::test_"
_AUTHORIZE = f"{_AS}authorize.py::test_"
_DEMANDS = f"{_AS}sign_in_demands.py::test_"
_CHANGED = f"{_CONSENT}changed_documents.py::test_"
_GUESSES = f"{_AS}guesses_and_outages.py::test_"
_PAGE = f"{_CONSENT}consent_page.py::test_"
_TRIED = f"{_CONSENT}consent_attacks.py::test_"
_GROWS = f"{_CONSENT}consent_grows.py::test_"
_CODES = f"{_AS}authorization_codes.py::test_"
_REFRESH = f"{_AS}refresh_tokens.py::test_"
_PARALLEL = f"{_AS}parallel_requests.py::test_"
_CLIENTS = f"{_AS}client_authentication.py::test_"
_REVOKE = f"{_AS}revocation_and_introspection.py::test_"
_BEARER = f"{_AS}bearer_tokens.py::test_"
_EXPIRY = f"{_AS}clients_and_expiry.py::test_"
_ATTACKS = f"{_CONNECT}attacks.py::test_"
_TWO = f"{_CONNECT}two_browsers.py::test_"
_SESSIONS_PAGE = "tests/gateway_site/test_people_sessions.py::test_"
_UNDER_WAY = "tests/gateway_site/test_withdrawn_under_way.py::test_withdrawn_"
_FLOW = f"{_CONNECT}flow.py::test_"

# 4A: metadata of the authorization server and the protected resources.
METADATA: dict[str, tuple[str, ...]] = {
    "#1": (
        f"{_DISCOVERY}the_server_describes_itself_the_same_everywhere",
        f"{_GUESSES}1_every_address_in_the_metadata_is_of_the_issuers_own_origin",
    ),
    "#2": (f"{_DISCOVERY}no_document_believes_the_request_about_the_host",),
    "#4": (
        f"{_DISCOVERY}a_resource_describes_itself",
        f"{_GATE}without_a_token_a_client_is_told_where_to_authorize",
    ),
    "#5": (f"{_DISCOVERY}unknown_resources_all_get_one_404",),
    "#7": (
        f"{_AUTHORIZE}allowing_redirects_with_code_state_and_issuer",
        f"{_AUTHORIZE}denying_says_so_with_state_and_issuer",
        f"{_AUTHORIZE}other_mistakes_go_to_the_client_with_state_and_issuer",
    ),
    "#8": (
        f"{_DISCOVERY}nothing_else_is_open_to_other_origins",
        f"{_DISCOVERY}browsers_may_ask_first",
        "tests/gateway_site/test_addresses_for_strangers.py::"
        "test_8_no_page_and_no_endpoint_is_open_to_other_origins",
        "tests/gateway_site/test_addresses_for_strangers.py::"
        "test_8_what_is_open_to_every_origin_takes_nobodys_cookies",
    ),
}

# 4B: dynamic client registration.
REGISTRATION: dict[str, tuple[str, ...]] = {
    "#10": (f"{_REGISTER}a_harmful_redirect_uri_is_refused_and_nothing_stored",),
    "#11": (
        f"{_REGISTER}a_harmful_redirect_uri_is_refused_and_nothing_stored",
        f"{_REGISTER}redirect_uris_must_be_a_list_of_one_to_ten",
    ),
    "#13": (f"{_REGISTER}the_one_private_scheme_uri_is_accepted_exactly",),
    "#14": (
        f"{_REGISTER}a_harmful_redirect_uri_is_refused_and_nothing_stored",
        f"{_REGISTER}14_no_spelling_of_the_gateways_own_host_is_a_place_to_send_codes",
    ),
    "#16": (
        f"{_REGISTER}pages_of_the_client_must_be_https",
        f"{_BROWSER}attacks.py::test_pages_ask_no_other_site_for_anything",
    ),
    "#17": (
        f"{_REGISTER}nothing_is_fetched_at_registration",
        f"{_CLIENTS}keys_are_never_fetched_from_inside_the_network",
    ),
    "#19": (
        f"{_REGISTER}grants_that_are_not_offered_are_dropped_and_stay_unusable",
        f"{_REGISTER}metadata_that_cannot_be_honoured_is_refused",
    ),
    "#20": (f"{_REGISTER}members_that_are_ours_to_say_are_ignored",),
    "#21": (
        f"{_REGISTER}one_address_cannot_register_without_end",
        f"{_REGISTER}a_vendors_shared_address_gets_a_larger_share",
        f"{_GUESSES}21_a_flood_from_everywhere_leaves_the_vendors_addresses_their_share",
        f"{_EXPIRY}unapproved_registrations_go_after_a_day_and_approved_ones_stay",
        f"{_MANAGE}a_flood_of_registrations_leaves_a_bounded_number_of_rows",
    ),
    "#22": (
        f"{_MANAGE}another_clients_token_or_none_manages_nothing",
        f"{_MANAGE}an_update_is_checked_like_a_registration",
        f"{_GUESSES}22_a_client_that_removes_itself_takes_what_it_holds_along",
        f"{_TRIED}22_a_client_that_changes_where_it_sends_people_asks_again",
        f"{_GROWS}another_name_or_redirect_host_is_asked_about",
    ),
    "#23": (
        f"{_REGISTER}the_secret_is_shown_once_and_stored_as_a_digest",
        f"{_REGISTER}real_clients_get_a_complete_answer",
    ),
}

# 4C: client ID metadata documents.
DOCUMENTS: dict[str, tuple[str, ...]] = {
    "#25": (f"{_DOCUMENTS}a_malformed_url_is_refused_without_looking_anywhere",),
    "#26": (
        f"{_DOCUMENTS}only_public_addresses_are_connected_to",
        f"{_DOCUMENTS}a_document_at_an_address_inside_is_not_connected_to",
        f"{_DOCUMENTS}one_private_address_condemns_the_host",
    ),
    "#28": (
        f"{_DOCUMENTS}the_connection_goes_to_the_address_that_was_checked",
        f"{_DOCUMENTS}a_certificate_for_another_name_is_refused",
    ),
    "#29": (f"{_DOCUMENTS}redirects_are_never_followed",),
    "#31": (f"{_DOCUMENTS}only_json_is_read_as_json",),
    "#32": (
        f"{_DOCUMENTS}and_not_a_byte_more",
        f"{_DOCUMENTS}an_endless_document_is_left_early",
        f"{_DOCUMENTS}a_compressed_document_is_not_unpacked",
    ),
    "#34": (f"{_DOCUMENTS}the_document_must_name_exactly_its_own_url",),
    "#35": (f"{_DOCUMENTS}odd_json_is_refused",),
    "#37": (f"{_DOCUMENTS}a_document_the_gateway_cannot_honour_is_refused_whole",),
    "#38": (
        f"{_DOCUMENTS}real_clients_reach_the_page_and_get_a_code",
        f"{_DOCUMENTS}secret_methods_are_dropped_where_something_better_is_offered",
    ),
    "#40": (
        f"{_DOCUMENTS}a_removed_redirect_stops_working_after_the_lifetime",
        f"{_GROWS}another_name_or_redirect_host_is_asked_about",
        f"{_CHANGED}40_another_identity_is_asked_about_before_anything_is_renewed",
        f"{_CHANGED}40_other_keys_and_pictures_are_told_and_sign_nobody_out",
        f"{_CHANGED}40_a_redirect_that_is_gone_is_refused_as_soon_as_the_lifetime_has_passed",
    ),
    "#41": (
        f"{_DOCUMENTS}lifetimes_have_a_floor_and_a_ceiling",
        f"{_DOCUMENTS}a_broken_document_is_not_used_in_place_of_the_good_one",
    ),
    "#43": (
        f"{_DOCUMENTS}only_ten_documents_are_fetched_at_once",
        f"{_DOCUMENTS}no_row_is_written_before_a_person_approves",
    ),
    "#44": (
        f"{_DOCUMENTS}the_gateway_never_asks_itself",
        f"{_GUESSES}44_the_gateways_own_document_is_nobodys_client",
        f"{_DOCUMENTS}redirects_are_never_followed",
    ),
    "#46": (f"{_DOCUMENTS}every_failure_looks_the_same_from_outside",),
    "#47": (f"{_DOCUMENTS}two_devices_stay_signed_in",),
}

# 4D: the authorize endpoint.
AUTHORIZE: dict[str, tuple[str, ...]] = {
    "#48": (
        f"{_AUTHORIZE}an_unknown_client_is_told_here_and_never_redirected",
        f"{_AUTHORIZE}a_redirect_uri_that_is_not_registered_is_told_here",
    ),
    "#49": (f"{_AUTHORIZE}only_the_port_of_a_loopback_redirect_may_differ",),
    "#50": (f"{_AUTHORIZE}other_mistakes_go_to_the_client_with_state_and_issuer",),
    "#52": (
        f"{_AUTHORIZE}a_parameter_that_is_there_twice_is_told_here",
        f"{_AUTHORIZE}two_resources_are_refused",
    ),
    "#53": (
        f"{_AUTHORIZE}other_mistakes_go_to_the_client_with_state_and_issuer",
        f"{_AUTHORIZE}a_person_who_may_not_use_the_resource_is_denied",
        f"{_AUTHORIZE}without_a_resource_the_person_picks",
        f"{_AUTHORIZE}without_a_resource_the_only_one_is_taken",
    ),
    "#55": (
        f"{_AUTHORIZE}the_state_comes_back_once_and_encoded",
        f"{_AUTHORIZE}a_request_that_is_too_long_is_told_here",
    ),
    "#56": (
        f"{_AUTHORIZE}nothing_a_client_sends_skips_the_page",
        f"{_DEMANDS}none_never_gives_a_code_however_often_the_person_agreed",
        f"{_DEMANDS}a_person_signs_in_again_once_and_then_decides",
        f"{_PAGE}earlier_yes_never_skips_the_page",
        f"{_TRIED}56_an_older_yes_and_no_demand_together_give_a_code",
    ),
    "#58": (f"{_AUTHORIZE}other_mistakes_go_to_the_client_with_state_and_issuer",),
    "#59": (
        f"{_AUTHORIZE}a_post_from_another_site_is_refused",
        f"{_AUTHORIZE}other_methods_are_not_allowed",
        f"{_AUTHORIZE}a_request_that_is_too_long_is_told_here",
    ),
    "#61": (f"{_AUTHORIZE}allowing_redirects_with_code_state_and_issuer",),
    "#62": (
        "tests/gateway_site/test_openid_sign_in.py::"
        "test_62_the_state_belongs_to_one_browser_one_provider_and_one_use",
        f"{_PAGE}session_that_existed_before_sign_in_is_not_kept",
        f"{_TRIED}62_a_session_planted_before_sign_in_opens_nothing_afterwards",
    ),
    "#63": (f"{_AUTHORIZE}an_approval_is_for_the_person_who_saw_the_page",),
    "#64": (
        f"{_AUTHORIZE}an_approval_is_for_its_own_browser",
        f"{_AUTHORIZE}an_approval_is_good_for_ten_minutes",
        f"{_AUTHORIZE}an_approval_counts_once",
        f"{_AUTHORIZE}a_forged_approval_is_refused",
    ),
    "#65": (
        f"{_AUTHORIZE}every_answer_keeps_to_itself",
        f"{_PAGE}page_is_not_stored_framed_or_told_to_others",
        f"{_TRIED}65_every_page_of_the_way_keeps_to_itself",
        f"{_CONNECT}pages.py::test_the_pages_are_not_stored_not_framed_and_tell_others_nothing",
        f"{_BROWSER}attacks.py::test_pages_ask_no_other_site_for_anything",
    ),
}

# 4E: the consent and connect pages.
CONSENT: dict[str, tuple[str, ...]] = {
    "#67": (f"{_BROWSER}attacks.py::test_consent_page_cannot_be_framed",),
    "#68": (
        f"{_PAGE}approval_needs_the_csrf_token",
        f"{_PAGE}ticket_of_another_person_is_refused",
        f"{_PAGE}ticket_for_another_request_is_refused",
        f"{_PAGE}only_the_button_approves",
        f"{_TRIED}68_a_token_of_another_session_approves_nothing",
        f"{_TRIED}68_only_a_post_of_the_pages_own_form_approves",
    ),
    "#70": (
        f"{_PAGE}page_says_who_asks_for_what_as_whom_and_where_the_answer_goes",
        f"{_PAGE}client_that_registered_itself_is_not_verified",
        f"{_TRIED}70_the_page_names_every_host_account_and_permission",
    ),
    "#71": (f"{_PAGE}client_on_this_computer_is_named_as_such",),
    "#72": (
        f"{_BROWSER}firefox.py::test_firefox_takes_the_code_to_a_loopback_client",
        f"{_BROWSER}firefox.py::test_firefox_follows_a_client_that_sends_the_browser_on",
        f"{_BROWSER}firefox.py::test_firefox_reaches_a_client_that_goes_on_to_a_private_scheme",
        f"{_BROWSER}firefox.py::test_firefox_hands_the_code_to_a_client_with_a_scheme_of_its_own",
        f"{_BROWSER}firefox.py::test_firefox_takes_the_code_to_a_web_client",
        f"{_BROWSER}redirects_after_consent.py::test_loopback_client_gets_its_code",
        f"{_BROWSER}redirects_after_consent.py::test_client_that_sends_the_browser_on_to_another_site",
        f"{_BROWSER}redirects_after_consent.py::test_client_with_a_scheme_of_its_own",
    ),
    "#73": (
        f"{_PAGE}hostile_names_are_shown_as_they_are",
        f"{_TRIED}73_tools_accounts_and_answers_are_shown_as_they_are",
        f"{_BROWSER}attacks.py::test_hostile_client_name_is_only_text",
    ),
    "#74": (f"{_BROWSER}redirects_after_consent.py::test_popup_keeps_its_opener",),
    "#76": (
        f"{_TWO}76_a_victim_finishes_what_an_attacker_began",
        f"{_ATTACKS}76_a_victim_who_finishes_the_attackers_connect_gives_nothing_away",
        f"{_BROWSER}attacks.py::test_connect_begun_by_an_attacker_cannot_be_finished_by_a_victim",
    ),
    "#77": (
        f"{_TWO}77_another_person_signs_in_before_the_answer_comes",
        f"{_ATTACKS}77_another_person_in_the_same_browser_is_refused",
    ),
    "#78": (
        f"{_TWO}78_an_attackers_own_account_is_forced_on_a_victim",
        f"{_TWO}78_an_attackers_code_with_the_victims_own_state_gives_no_account",
        f"{_ATTACKS}78_the_same_person_in_another_browser_is_refused",
    ),
    "#79": (
        f"{_TWO}79_an_answer_is_taken_once_and_only_by_its_own_upstream",
        f"{_ATTACKS}79_an_answer_is_used_once",
        f"{_ATTACKS}79_two_answers_at_once_make_one_exchange",
        f"{_ATTACKS}79_a_late_answer_is_refused",
        f"{_ATTACKS}79_a_state_that_is_not_ours_is_refused",
        f"{_ATTACKS}79_an_answer_on_another_upstreams_address_is_refused",
    ),
    "#80": (
        f"{_ATTACKS}80_an_answer_of_another_issuer_is_refused",
        f"{_ATTACKS}80_an_issuer_that_is_wrong_though_not_announced_is_refused",
        f"{_ATTACKS}80_an_error_of_another_issuer_shows_none_of_its_text",
    ),
    "#82": (
        f"{_FLOW}82_connecting_again_makes_a_new_grant",
        f"{_FLOW}a_refused_exchange_leaves_the_old_account_alone",
        f"{_WHOSE}82_an_account_that_two_people_share_stays_two_accounts_here",
        f"{_WHOSE}82_the_pages_name_the_account_and_the_new_one_only_once_it_is_there",
    ),
    "#83": (f"{_PAGE}approval_before_required_upstreams_are_connected_is_refused_by_the_server",),
    "#85": (
        f"{_CONSENT}independent_services.py::"
        "test_85_one_service_that_cannot_be_connected_leaves_the_others_and_says_which",
        f"{_CONSENT}independent_services.py::"
        "test_85_of_three_services_one_is_down_while_it_is_connected",
        f"{_CONNECT}pages.py::test_a_failing_server_is_a_page_that_says_what_to_do",
    ),
    "#86": (
        f"{_FLOW}86_disconnecting_deletes_here_and_revokes_there",
        "tests/virtualmcp/test_calls.py::test_an_unconnected_account_becomes_a_link_in_text",
        "tests/journeys/test_upstream_trouble.py::"
        "test_an_upstream_that_is_not_connected_gives_a_link_and_works_after_it_was_followed",
    ),
    "#88": (
        f"{_FLOW}88_two_tabs_both_finish",
        f"{_FLOW}a_person_has_at_most_ten_open_attempts",
        f"{_BROWSER}redirects_after_consent.py::test_two_clients_in_two_tabs_both_finish",
    ),
    "#89": (
        f"{_SESSIONS_PAGE}89_cookies_are_bound_to_the_host_over_https",
        f"{_FLOW}89_the_binding_cookie_is_kept_from_scripts_and_other_sites",
        f"{_TRIED}89_every_cookie_of_the_whole_way_is_bound_to_the_host",
        f"{_TRIED}89_a_cookie_that_a_sibling_host_could_set_is_not_taken",
    ),
    "#90": (
        f"{_BROWSER}attacks.py::test_form_on_another_site_approves_nothing",
        f"{_BROWSER}attacks.py::test_one_click_on_a_link_gives_an_attackers_client_nothing",
        f"{_PAGE}earlier_yes_never_skips_the_page",
    ),
    "#91": (f"{_ATTACKS}91_unsigned_data_on_the_callback_decides_nothing",),
}

# 4F: token, revocation, introspection.
TOKENS: dict[str, tuple[str, ...]] = {
    "#92": (
        f"{_CODES}a_wrong_verifier_leaves_the_code_to_its_owner",
        f"{_CODES}five_wrong_verifiers_use_the_code_up",
        f"{_CODES}a_verifier_out_of_bounds_is_refused_though_it_fits_the_challenge",
    ),
    "#93": (
        f"{_CODES}a_replayed_code_ends_what_it_issued",
        f"{_CODES}a_replayed_code_ends_rotated_successors_too",
        f"{_CODES}who_repeats_a_used_code_makes_no_more_work_than_once",
        f"{_REFRESH}a_replay_is_noticed_by_the_bearer_check_at_once",
        f"{_STREAMS}a_call_ends_when_its_token_does",
    ),
    "#94": (
        f"{_CODES}a_made_up_code_is_refused_and_revokes_nothing",
        f"{_CODES}a_replay_by_another_client_revokes_nothing",
    ),
    "#95": (
        f"{_PARALLEL}a_code_redeemed_sixteen_times_at_once_gives_exactly_one_answer",
        "tests/oauthserver/test_token_races.py::"
        "test_of_sixteen_redemptions_of_one_code_exactly_one_succeeds",
    ),
    "#97": (f"{_CODES}another_redirect_uri_is_refused_without_using_the_code",),
    "#98": (
        f"{_CODES}the_token_request_cannot_bring_another_resource",
        f"{_CODES}the_resource_may_be_left_out_or_end_in_a_slash",
        f"{_REFRESH}a_refresh_cannot_change_the_resource",
    ),
    "#100": (
        f"{_CLIENTS}basic_works_in_its_spellings",
        f"{_CLIENTS}a_secret_from_a_public_client_is_refused",
        f"{_CLIENTS}a_confidential_client_needs_its_proof",
        f"{_CLIENTS}only_the_registered_method_counts",
        f"{_CLIENTS}another_clients_secret_is_refused",
        f"{_CLIENTS}two_methods_at_once_are_refused",
        f"{_CLIENTS}a_malformed_header_is_refused",
    ),
    "#101": (
        f"{_CLIENTS}a_body_that_is_no_plain_form_is_refused",
        f"{_CLIENTS}credentials_in_the_url_are_not_read",
    ),
    "#103": (
        f"{_CODES}answers_are_never_stored_by_caches",
        f"{_AS}no_secret_is_told.py::test_s6_no_secret_of_a_clients_life_is_logged_or_audited",
    ),
    "#104": (f"{_REFRESH}a_refresh_token_used_after_its_successor_ends_the_family",),
    "#105": (
        f"{_REFRESH}a_lost_answer_is_given_again",
        f"{_REFRESH}the_window_for_lost_answers_is_a_minute",
    ),
    "#106": (f"{_REFRESH}a_refresh_token_used_after_its_successor_ends_the_family",),
    "#107": (
        f"{_PARALLEL}a_refresh_token_used_eight_times_at_once_gives_one_successor",
        "tests/oauthserver/test_token_races.py::"
        "test_of_eight_refreshes_of_one_token_all_give_one_successor",
    ),
    "#109": (
        f"{_PARALLEL}a_crash_in_the_middle_of_a_rotation_leaves_the_old_token_working",
        f"{_PARALLEL}a_crash_after_the_rotation_leaves_the_new_token_reachable",
    ),
    "#110": (
        f"{_PARALLEL}a_crash_in_the_middle_of_a_rotation_leaves_the_old_token_working",
        f"{_GUESSES}110_a_cache_that_is_down_makes_nobody_throw_a_token_away",
    ),
    "#112": (
        f"{_CONSENT}independent_services.py::"
        "test_112_a_refresh_does_not_ask_whether_services_are_connected",
    ),
    "#113": (
        f"{_REVOKE}a_client_ends_its_own_token_with_its_family",
        f"{_REVOKE}an_unknown_token_is_no_error",
        f"{_REVOKE}another_clients_token_stays_alive",
        "tests/gateway_site/test_change_feed.py::"
        "test_a_change_made_by_another_process_is_heard_within_a_second",
        "tests/gateway_site/test_production_server.py::"
        "test_two_workers_are_one_gateway_and_a_lost_one_is_replaced",
    ),
    "#115": (
        f"{_CLIENTS}guessing_is_slowed_down",
        f"{_GUESSES}115_guesses_of_every_kind_are_slowed_down",
        f"{_GUESSES}115_a_guess_that_is_somebody_elses_looks_like_any_other",
    ),
    "#116": (
        f"{_CODES}nothing_usable_is_stored",
        f"{_CODES}a_waiting_code_is_stored_as_a_digest",
        f"{_REFRESH}the_remembered_answer_opens_only_with_the_old_token",
        f"{_GUESSES}116_whoever_reads_the_database_and_the_cache_finds_nothing_to_use",
        "tests/upstreams/test_no_secret_shows.py::"
        "test_s6_no_secret_of_a_whole_journey_can_be_read_anywhere",
    ),
}

# 4G: the resource server.
RESOURCE_SERVER: dict[str, tuple[str, ...]] = {
    "#118": (
        f"{_BEARER}anything_but_one_good_header_is_refused",
        f"{_GATE}a_value_that_is_no_valid_token_is_refused",
        f"{_GATE}two_tokens_are_refused_though_one_is_good",
    ),
    "#119": (
        f"{_SESSIONS_PAGE}119_signing_out_everywhere_ends_every_browser_and_every_client",
        "tests/gateway_site/test_scim.py::"
        "test_119_switching_a_person_off_ends_sessions_and_tokens_for_good",
        f"{_GATE}expired_tokens_and_those_of_disabled_people_and_clients_are_refused",
        f"{_BEARER}ending_tokens_is_felt_at_once",
        "tests/gateway_site/test_change_feed.py::test_switching_a_person_off_reaches_every_process",
        f"{_UNDER_WAY}before_the_token_is_made",
        f"{_UNDER_WAY}while_the_token_is_written",
        f"{_UNDER_WAY}while_a_person_agrees",
    ),
    "#120": (
        f"{_GATE}a_token_of_another_server_is_refused_with_this_ones_challenge",
        f"{_GATE}a_trailing_slash_is_the_same_server",
        f"{_BEARER}a_token_is_good_for_its_own_resource_only",
        f"{_FOREIGN}120_a_token_is_good_at_exactly_one_address",
        "tests/gateway_site/test_addresses_for_strangers.py::"
        "test_120_a_clients_token_opens_nothing_that_is_for_administrators",
    ),
    "#121": (
        f"{_BEARER}other_credentials_are_no_access_token",
        f"{_FOREIGN}121_other_credentials_are_no_access_token",
    ),
    "#122": (
        f"{_GATE}a_token_in_the_query_or_a_cookie_is_none",
        "tests/journeys/test_bad_requests.py::"
        "test_a_token_in_the_query_or_of_nobody_or_expired_is_a_challenge",
        "tests/journeys/test_bad_requests.py::test_no_secret_of_anybody_is_in_the_log",
    ),
    "#124": (
        f"{_GATE}losing_access_is_felt_by_the_next_request",
        "tests/virtualmcp/test_access_rules.py::"
        "test_access_is_lost_with_the_group_when_it_is_left_or_deleted",
        f"{_ENDS}124_134_a_running_call_ends_with_the_access_or_the_tokens_time",
        f"{_ENDS}124_a_stream_ends_when_its_person_leaves_the_group",
        f"{_NOTICES}a_stream_ends_with_the_access_to_its_server",
    ),
    "#125": (f"{_GATE}when_a_part_of_the_decision_fails_nobody_gets_in",),
    "#127": (
        f"{_GATE}an_unknown_address_is_the_same_404_for_everybody",
        f"{_GATE}a_server_one_may_not_use_looks_like_one_that_does_not_exist",
        f"{_FOREIGN}127_no_method_tells_a_forbidden_server_from_one_that_does_not_exist",
        f"{_CONSENT}connections_page.py::test_nobody_revokes_for_somebody_else",
        "tests/virtualmcp/test_access_rules.py::"
        "test_a_tool_for_a_group_is_neither_listed_nor_callable_for_others",
        "tests/virtualmcp/test_unknown_and_forbidden.py::"
        "test_what_a_group_hides_answers_as_what_is_not_there",
        "tests/virtualmcp/test_unknown_and_forbidden.py::"
        "test_a_task_of_a_tool_that_was_lost_is_one_that_never_was",
        f"{_CONSENT}unknown_and_forbidden_pages.py::"
        "test_a_page_of_what_is_not_for_somebody_is_the_page_of_nothing",
    ),
    "#128": (
        "tests/gateway_site/test_operations_addresses.py::"
        "test_metrics_are_for_administrators_and_the_token",
        "tests/gateway_site/test_operations_addresses.py::"
        "test_a_node_without_its_database_is_not_ready_and_says_little",
        "tests/gateway_site/test_addresses_for_strangers.py::test_128_nothing_else_answers",
        "tests/gateway_site/test_addresses_for_strangers.py::"
        "test_128_probes_say_only_how_it_stands",
        "tests/gateway_site/test_operations_addresses.py::test_rest_is_read_only_and_for_staff",
    ),
    "#130": (
        f"{_GATE}a_foreign_host_is_misdirected",
        f"{_GATE}two_hosts_are_refused",
        f"{_GATE}a_missing_host_is_refused",
        "tests/gateway_site/test_production_server.py::"
        "test_130_an_address_that_names_another_host_than_the_header_is_refused",
    ),
    "#131": (f"{_GATE}what_is_no_post_and_names_no_session_is_405_and_never_404",),
    "#132": (
        f"{_SESSIONS}a_session_of_another_person_or_server_is_unknown",
        f"{_SESSIONS}a_guessed_session_is_unknown",
        f"{_ERA}a_session_of_another_server_person_or_client_is_unknown",
        f"{_SESSIONS}an_ended_session_is_gone",
        f"{_FOREIGN}132_a_session_that_is_too_old_is_unknown",
        f"{_FOREIGN}132_a_session_of_odd_characters_is_unknown",
        f"{_FOREIGN}132_equal_ids_of_two_sessions_get_their_own_answers",
        f"{_FOREIGN}132_a_session_is_of_no_use_after_its_person_has_signed_out_everywhere",
    ),
    "#133": (f"{_SESSIONS}a_stateless_request_ignores_a_session_and_gets_none",),
    "#134": (
        f"{_STREAMS}a_call_ends_when_its_token_does",
        f"{_ENDS}124_134_a_running_call_ends_with_the_access_or_the_tokens_time",
        f"{_NOTICES}a_stream_ends_with_its_token",
        f"{_ENDS}134_a_stream_that_says_nothing_ends_in_its_tokens_time",
    ),
}

MAP: dict[str, tuple[str, ...]] = {
    **METADATA,
    **REGISTRATION,
    **DOCUMENTS,
    **AUTHORIZE,
    **CONSENT,
    **TOKENS,
    **RESOURCE_SERVER,
}

# The numbers of the catalogue that these sections have.
CASES = frozenset(
    f"#{number}"
    for number in (
        *(1, 2, 4, 5, 7, 8),
        *(10, 11, 13, 14, 16, 17, 19, 20, 21, 22, 23),
        *(25, 26, 28, 29, 31, 32, 34, 35, 37, 38, 40, 41, 43, 44, 46, 47),
        *(48, 49, 50, 52, 53, 55, 56, 58, 59, 61, 62, 63, 64, 65),
        *(67, 68, 70, 71, 72, 73, 74, 76, 77, 78, 79, 80, 82, 83, 85, 86, 88, 89, 90, 91),
        *(92, 93, 94, 95, 97, 98, 100, 101, 103, 104, 105, 106, 107, 109, 110, 112, 113, 115, 116),
        *(118, 119, 120, 121, 122, 124, 125, 127, 128, 130, 131, 132, 133, 134),
    )
)
