from twisted.application.service import ServiceMaker

pop3toy = ServiceMaker("pop3toy", "pop3toy.tap", "A POP3 server that shows what it says.", "pop3toy")
