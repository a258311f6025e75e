"""The administration says what each thing is for, and asks before it ends somebody's access."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User

from gateway_site.admin_confirmation import ASKED
from gateway_site.admin_explanations import EXPLANATIONS, ROOMS

pytestmark = pytest.mark.django_db
LISTS = sorted(model._meta.label_lower for model in admin.site._registry)


def test_every_kind_of_thing_is_explained_and_has_its_room():
    assert sorted(EXPLANATIONS) == LISTS
    assert {label.partition(".")[0] for label in LISTS} == set(ROOMS)


@pytest.mark.parametrize("label", LISTS)
def test_a_list_says_what_it_is_for_and_what_to_do_while_it_is_empty(admin_client, label):
    said = EXPLANATIONS[label]
    page = admin_client.get(f"/admin/{label.replace('.', '/')}/").content.decode()
    shown = page.replace("&#x27;", "'")
    assert said.about in shown
    if said.empty and label != "auth.user":
        assert said.empty in shown
    assert "Select " not in page.partition("<h1>")[2].partition("</h1>")[0]


def test_the_rooms_come_in_the_order_of_use(admin_client):
    rooms = admin_client.get("/admin/").context["app_list"]
    assert [room["name"] for room in rooms] == list(ROOMS.values())


def test_every_action_that_is_asked_about_exists():
    known = {
        (f"{model._meta.app_label}_{model._meta.model_name}", action)
        for model, model_admin in admin.site._registry.items()
        for action in model_admin.actions or ()
    }
    assert set(ASKED) <= known


def test_the_question_names_who_is_meant_and_comes_once(admin_client):
    people = [User.objects.create_user(f"person-{n:02}") for n in range(25)]
    form = {
        "action": "sign_out_everywhere",
        "_selected_action": [str(person.pk) for person in people],
        "index": "0",
    }
    page = admin_client.post("/admin/auth/user/?q=person", form)
    text = page.content.decode()
    assert "End every browser session of these people" in text
    assert "person-00" in text
    assert "25 in all" in text
    sent = {**form, "confirmed": "yes"}
    done = admin_client.post("/admin/auth/user/?q=person", sent, follow=True)
    assert "25 people are signed out everywhere" in done.content.decode()


def test_all_pages_of_a_list_are_meant_where_the_person_chose_so(admin_client):
    person = User.objects.create_user("ops-1")
    User.objects.create_user("ops-2")
    form = {"action": "sign_out_everywhere", "_selected_action": [str(person.pk)]}
    page = admin_client.post("/admin/auth/user/?q=ops", {**form, "select_across": "1"})
    assert page.context["count"] == 2
