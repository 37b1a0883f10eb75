"""What happens in a conversation, in a sentence for each line: for people who want to see how mail works.

``explainer`` is told of events and answers with explanations; ``pop3`` and ``smtp`` know the two protocols,
``sasl`` the exchanges behind AUTH, ``wrong_track`` who speaks something else, ``clients`` by what sign mail
programs are known.  The texts are English in the code; other languages are gettext catalogues in
``pop3toy/locale``.
"""
