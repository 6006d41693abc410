def test_x(runner, data, source):
    import time
    t=time.time()
    print("up", )
    for i in range(3):
        run = runner.run()
        print(run.state, run.seconds, data.log_of(run.run_id), data.staging())
        print(source.expectations() if not i else '')
        print(data.pipeline_run(run.run_id), source.requests())
        if run.state!='success': print(run.log[-5000:])
        source.advance()
