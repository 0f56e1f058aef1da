"""A real browser through login, denial and sign-out, wide and narrow, light and dark. Screenshots go to build/screenshots."""

import os
import shutil
import tempfile

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from stand import PASSWORD, Stand, Upstream
from trial import ROOT, wait_for
from tunnels import DB, STAFF, Client, echo, route, says

SHOTS = os.path.join(ROOT, "build", "screenshots")
USER = "user@example.com"


def chromium(dark=False, phone=False, scripts=True):
    o = webdriver.ChromeOptions()
    o.binary_location = shutil.which("chromium")
    profile = tempfile.mkdtemp(prefix="postern-chromium-")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-dev-shm-usage", "--ignore-certificate-errors", f"--user-data-dir={profile}",
                 "--host-resolver-rules=MAP *.localhost 127.0.0.1",
                 "--window-size=" + ("390,844" if phone else "1200,800")):
        o.add_argument(flag)
    if dark:
        o.add_argument("--force-dark-mode")
        o.add_argument("--blink-settings=preferredColorScheme=0")
    if not scripts:
        o.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    o.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    return webdriver.Chrome(service=service, options=o), profile


@pytest.fixture(params=["desk", "phone-dark"])
def person(request):
    driver, profile = chromium(dark="dark" in request.param, phone="phone" in request.param, scripts=False)
    driver.look = request.param
    if "phone" in request.param:  # a window cannot be as narrow as a small phone
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                               {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


def shot(driver, name):
    os.makedirs(SHOTS, exist_ok=True)
    driver.save_screenshot(os.path.join(SHOTS, f"{name}-{driver.look}.png"))


def log_in(driver, trial, url, email):
    driver.get(url)
    WebDriverWait(driver, 10).until(lambda d: d.find_elements(By.CSS_SELECTOR, "input[type=password]"))
    shot(driver, "login")
    fits(driver)
    driver.find_element(By.CSS_SELECTOR, "input[type=email], input[type=text]").send_keys(email)
    driver.find_element(By.CSS_SELECTOR, "input[type=password]").send_keys(trial.accounts()[email])
    driver.find_element(By.CSS_SELECTOR, "button, input[type=submit]").click()
    WebDriverWait(driver, 10).until(lambda d: d.current_url == url)


def no_complaints(driver):
    """No broken style sheet, no refused script: our own pages obey their own policy."""
    bad = [x["message"] for x in driver.get_log("browser")
           if "Content Security Policy" in x["message"] or "Refused" in x["message"]]
    assert not bad, bad


def fits(driver):
    wide = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})
    assert wide["cssContentSize"]["width"] <= wide["cssVisualViewport"]["clientWidth"] + 1


def test_login_denial_and_sign_out(person, trial):
    log_in(person, trial, trial.url("demo", "/?hello=browser"), USER)
    assert USER in person.page_source
    shot(person, "demo")
    fits(person)
    person.get(trial.url("demo", "/.pomerium/"))
    assert USER in person.page_source
    shot(person, "about-me")
    fits(person)
    no_complaints(person)
    person.get(trial.url("admin"))
    text = person.find_element(By.TAG_NAME, "main").text
    assert "not allowed" in text and f"You are logged in as {USER}." in text and "admins" not in person.page_source
    assert [a.text for a in person.find_elements(By.CSS_SELECTOR, "main a")] == ["Who am I here?", "Sign out, to log in as somebody else"]
    shot(person, "denied")
    fits(person)
    no_complaints(person)
    person.find_element(By.LINK_TEXT, "Sign out, to log in as somebody else").click()
    WebDriverWait(person, 10).until(lambda d: "signed out" in d.page_source.lower())
    shot(person, "signed-out")
    fits(person)
    no_complaints(person)
    person.get(trial.url("demo"))
    assert person.find_elements(By.CSS_SELECTOR, "input[type=password]")


def test_a_wrong_password_is_told_on_the_form(person, trial):
    person.get(trial.url("demo"))
    person.find_element(By.CSS_SELECTOR, "input[type=email], input[type=text]").send_keys(USER)
    person.find_element(By.CSS_SELECTOR, "input[type=password]").send_keys("wrong")
    person.find_element(By.CSS_SELECTOR, "button, input[type=submit]").click()
    WebDriverWait(person, 10).until(lambda d: d.find_elements(By.CSS_SELECTOR, "input[type=password]"))
    assert "authenticate.localhost" in person.current_url
    shot(person, "wrong-password")
    fits(person)
    no_complaints(person)


def test_a_program_gets_its_login(person):
    """The question, its form and the way back to the program obey the policy that browsers enforce."""
    home, u = tempfile.mkdtemp(prefix="postern-home-"), Upstream(raw=echo)
    stand = Stand(route(u.port, DB, STAFF), names=("db.localhost",)).start()
    program = Client(stand, home)
    try:
        s = program.connect()
        wait_for("the browser to be opened", program.addresses)
        person.get(program.addresses()[0])
        person.find_element(By.CSS_SELECTOR, "input[type=email], input[type=text]").send_keys(USER)
        person.find_element(By.CSS_SELECTOR, "input[type=password]").send_keys(PASSWORD)
        person.find_element(By.CSS_SELECTOR, "button, input[type=submit]").click()
        WebDriverWait(person, 10).until(lambda d: "Let a program in?" in d.title)
        assert DB in person.page_source
        shot(person, "program")
        fits(person)
        person.find_element(By.CSS_SELECTOR, "button").click()
        WebDriverWait(person, 10).until(lambda d: "You are logged in" in d.title)
        assert person.current_url.startswith("http://127.0.0.1:")
        shot(person, "program-done")
        no_complaints(person)
        says(s, b"hello")
    finally:
        program.end()
        stand.stop()
        u.close()
        shutil.rmtree(home)
