"""A travel agency: four services with a database each, a saga over them, and a demo that makes everything fail.

    python -m yaoki.examples.travel --trips 1000 --faults 0.2 --kills 3

`book.py` is the part to read first: the saga, forty lines of it. The rest is the world it lives in:

    services/    hotel, flight, points, payment (a participant each), recommendations, the front page
    catalogue.py what there is to sell        store.py   a service's own database
    host.py      runs the services as processes, and starts them again when they die
    faults.py    makes them fail on purpose   orchestrator.py   the process that runs the sagas
    audit.py     what really happened, read from the services' databases and nothing else
    demo/        all of it together
"""
