"""The model in a browser: a page of plain JavaScript modules in page/, and its export as a folder of static files.

runtime   onnxruntime-web, which is fetched once, checked, and kept in the user's cache folder
pages     every file of the page, by its path: for the export, and for a server
export    write them to a folder
page/     images.js, detector.js, crop.js and model.js do what images.py, faces/ and runtime/ do; edgeemo.js is their
          API for other pages, page.js and worker.js are this page
"""
