cd /tmp/w/h20/test/engine
export DOCKEREXEC_TEST_REQUIRED=1
skip=$(grep -v '^#' ../../hack/podman-cannot.txt | awk '{print "^"$1"$"}' | paste -sd'|')
../../.engine.test -test.v -test.timeout 30m -test.run '^TestEngine' -test.skip "$skip|^TestEngineManyTasksLeaveNothing$|^TestEngineFaults$|MissedTheStart|Checkpoint" 
echo "##### faults"
../../.engine.test -test.v -test.timeout 30m -test.run '^TestEngineFaults$'
