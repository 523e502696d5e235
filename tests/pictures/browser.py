"""Opens pages of `taper report` in headless Chromium and checks that they work: `browser.py FOLDER PAGE...`.

Screenshots go to FOLDER. Exits with 1 and a line for each fault.
"""

import json
import pathlib
import shutil
import sys
import time

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
SCHEMES = ("light", "dark")
faults = []


def check(page, what, holds):
    if not holds:
        faults.append(f"{page}: {what}")


def browser():
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    # Both by their paths: else selenium looks for them on the network.
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def requests(driver):
    """Addresses that the page asked for since the last call."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found


def shown(driver):
    return driver.execute_script("return document.getElementById('plots').range")


def open_page(driver, path, scheme, size):
    width, height = SIZES[size]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    driver.get(path.as_uri())
    for _ in range(100):
        if driver.execute_script("return document.getElementById('plots').dataset.ready"):
            return
        time.sleep(0.05)
    faults.append(f"{path.name}: its script did not get ready")


def values(driver):
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, ".values")]


def over(driver, index=0):
    return driver.find_elements(By.CSS_SELECTOR, ".u-over")[index]


def hovers_and_zooms(driver, name):
    plot = over(driver)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    before = values(driver)
    width = plot.size["width"]
    ActionChains(driver).move_to_element_with_offset(plot, -width // 6, 0).perform()
    hovered = values(driver)
    check(name, f"hovering changes no value: {before}", hovered != before)
    check(name, f"a value is missing: {hovered}", all(any(c.isdigit() for c in text) for text in hovered))
    whole = shown(driver)
    actions = ActionChains(driver).move_to_element_with_offset(plot, -width // 4, 0).click_and_hold()
    actions.move_by_offset(width // 4, 5).move_by_offset(width // 8, 0).release().perform()
    zoomed = shown(driver)
    check(name, f"dragging does not zoom: {whole} to {zoomed}", zoomed[1] - zoomed[0] < 0.6 * (whole[1] - whole[0]))
    check(name, "the reset button is not there after a zoom", driver.find_element(By.ID, "reset").is_enabled())
    ActionChains(driver).double_click(plot).perform()
    check(name, f"a double click does not reset: {shown(driver)}", shown(driver) == whole)


def toggles(driver, name):
    def picture():
        return driver.execute_script("return Array.from(document.querySelectorAll('#plots canvas'), c => c.toDataURL()).join()")

    for toggle in ("smooth", "raw", "log"):
        if not driver.find_elements(By.ID, toggle):
            continue
        before = picture()
        driver.find_element(By.ID, toggle).click()
        check(name, f"`{toggle}` changes nothing", picture() != before)
        driver.find_element(By.ID, toggle).click()
        check(name, f"`{toggle}` does not change back", picture() == before)
    whole = shown(driver)
    for axis in ("tokens", "time"):
        for found in driver.find_elements(By.CSS_SELECTOR, f"input[value={axis}]"):
            found.click()
            check(name, f"the axis `{axis}` is the one of the steps", shown(driver) != whole)
    driver.find_element(By.CSS_SELECTOR, "input[value=step]").click()
    check(name, "the steps are not the axis again", shown(driver) == whole)


def looks(driver, folder, path):
    for scheme in SCHEMES:
        for size in SIZES:
            name = f"{path.stem} {scheme} {size}"
            open_page(driver, path, scheme, size)
            overflow = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(name, f"{overflow} pixels stick out at the side", overflow <= 0)
            hovers_and_zooms(driver, name)
            toggles(driver, name)
            check(name, "it loaded a resource", driver.execute_script("return performance.getEntriesByType('resource').length") == 0)
            log = [entry["message"] for entry in driver.get_log("browser")]
            check(name, f"the console says {log}", not log)
            # Away from the plots, for a picture without a cursor.
            open_page(driver, path, scheme, size)
            picture(driver, folder / f"{path.stem}-{scheme}-{size}.png")
    others = [address for address in requests(driver) if not address.startswith(("file:", "data:"))]
    check(path.name, f"it asked for {others}", not others)


def picture(driver, file):
    """The whole page."""
    import base64

    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    file.write_bytes(base64.b64decode(shot["data"]))


def without_scripts(driver, folder, path):
    name = f"{path.stem} without scripts"
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    driver.get(path.as_uri())
    drawn = [svg for svg in driver.find_elements(By.CSS_SELECTOR, ".static svg") if svg.is_displayed()]
    check(name, f"{len(drawn)} pictures are shown", len(drawn) == 1)
    check(name, "controls that do nothing are shown", not driver.find_element(By.ID, "controls").is_displayed())
    picture(driver, folder / f"{path.stem}-without-scripts.png")
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def main():
    folder, pages = pathlib.Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    driver = browser()
    try:
        for page in pages:
            path = pathlib.Path(page).resolve()
            looks(driver, folder, path)
            without_scripts(driver, folder, path)
    finally:
        driver.quit()
    print("\n".join(faults))
    sys.exit(1 if faults else 0)


main()
