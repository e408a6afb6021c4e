"""The predict stage: from image files to their faces, each with its box and its emotion.

run       the stage
sources   which images the arguments name: files, folders and patterns
result    what is predicted for an image, as text and as JSON
outputs   the table and the painted images, written image by image
paint     boxes and labels on an image
"""
