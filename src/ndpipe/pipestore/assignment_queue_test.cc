#include "ndpipe/pipestore/assignment_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace ndpipe::pipestore {
namespace {

rpc::Assignment Make(int64_t job, int64_t epoch) {
  rpc::Assignment assignment;
  assignment.job = job;
  assignment.epoch = epoch;
  return assignment;
}

class AssignmentQueueTest : public testing::Test {
 protected:
  AssignmentQueue queue_;
  std::stop_source stop_;
};

TEST_F(AssignmentQueueTest, HandsOutInOrder) {
  queue_.Add(Make(1, 1));
  queue_.Add(Make(2, 2));
  EXPECT_EQ(queue_.Take(stop_.get_token())->assignment.job, 1);
  EXPECT_EQ(queue_.Take(stop_.get_token())->assignment.job, 2);
}

TEST_F(AssignmentQueueTest, NewerAssignmentOfTheRunningJobStopsIt) {
  queue_.Add(Make(1, 1));
  const auto running = queue_.Take(stop_.get_token());
  queue_.Add(Make(1, 2));
  EXPECT_TRUE(running->stop.stop_requested());
  const auto next = queue_.Take(stop_.get_token());
  EXPECT_EQ(next->assignment.epoch, 2);
  EXPECT_FALSE(next->stop.stop_requested());
}

TEST_F(AssignmentQueueTest, NewerAssignmentReplacesOneThatWaits) {
  queue_.Add(Make(1, 1));
  queue_.Add(Make(2, 2));
  queue_.Add(Make(1, 3));
  EXPECT_EQ(queue_.Take(stop_.get_token())->assignment.epoch, 2);
  EXPECT_EQ(queue_.Take(stop_.get_token())->assignment.epoch, 3);
}

TEST_F(AssignmentQueueTest, CancelStopsOnlyItsJob) {
  queue_.Add(Make(1, 1));
  queue_.Add(Make(2, 2));
  const auto running = queue_.Take(stop_.get_token());
  queue_.Cancel(2);
  EXPECT_FALSE(running->stop.stop_requested());
  queue_.Cancel(1);
  EXPECT_TRUE(running->stop.stop_requested());
  stop_.request_stop();
  EXPECT_FALSE(queue_.Take(stop_.get_token()));
}

TEST_F(AssignmentQueueTest, ClearVoidsEverything) {
  queue_.Add(Make(1, 1));
  queue_.Add(Make(2, 2));
  const auto running = queue_.Take(stop_.get_token());
  queue_.Clear();
  EXPECT_TRUE(running->stop.stop_requested());
  stop_.request_stop();
  EXPECT_FALSE(queue_.Take(stop_.get_token()));
}

TEST_F(AssignmentQueueTest, TakeWaitsForAnAssignmentOrAStop) {
  std::jthread adder([&] { queue_.Add(Make(7, 1)); });
  EXPECT_EQ(queue_.Take(stop_.get_token())->assignment.job, 7);
  std::jthread stopper([&] { stop_.request_stop(); });
  EXPECT_FALSE(queue_.Take(stop_.get_token()));
}

}  // namespace
}  // namespace ndpipe::pipestore
