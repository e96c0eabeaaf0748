"""The book as a course: notebooks with functions left to write, and a grader that runs what was written."""
