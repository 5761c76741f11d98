"""What people read of a study: tables, figures, sheets, pages, the model card."""
