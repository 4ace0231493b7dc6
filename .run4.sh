export DOCKEREXEC_TEST_REQUIRED=1; cd /tmp/w/h20/test/engine
../../.engine2.test -test.v -test.run "FollowedLogsBefore|TwentyEnds|Orphan|ErrorOfAMount|TasksComplete|VanishedNetwork"
cd ../../examples/batch;  ../../.batch.test -test.v -test.run "^TestEngine"
cd ../swarmnode; ../../.node.test -test.v -test.timeout 15m -test.run "^TestEngine" -test.skip "NodeOutlivesOtherAPIVersions|NodeOutlivesAnUpgrade|NodeOutlivesTheContainers|NodeLogs|StaysFlat|TakesOver|HasClusterVolumes|KilledNodeLeaves"
echo done
