#include "ndpipe/tuner/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

struct SilentChannel : rpc::StoreChannel {
  void Send(rpc::TunerMessage) override {}
  void Close(Error) override { closed = true; }
  std::atomic<bool> closed = false;
};

TEST_F(TunerTest, TwoDaemonsWithOneStoreIdAreRefused) {
  auto& service = Open();
  AddStore("a", Range(0, 10));
  FakeStore twin("a", Range(0, 10));
  ConnectAll();
  const auto refused = twin.Connect(service);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(refused.error().message, HasSubstr("host:a"));
  stores_[0]->Disconnect();
  EXPECT_TRUE(twin.Connect(service));
  twin.Disconnect();
}

TEST_F(TunerTest, ASilentConnectionMakesWayForANewOne) {
  auto& service = Open();
  FakeStore store("a", Range(0, 10));
  const auto silent = std::make_shared<SilentChannel>();
  const auto first = service.OnHello(store.MakeHello(), silent);
  ASSERT_TRUE(first);
  ASSERT_TRUE(store.Connect(service));
  EXPECT_TRUE(silent->closed);
  // The end of the old connection is not the end of the new one.
  service.OnDisconnect("a", first->session);
  EXPECT_TRUE(service.GetStatus()->stores.at(0).connected);
  store.Disconnect();
  EXPECT_FALSE(service.GetStatus()->stores.at(0).connected);
}

TEST_F(TunerTest, ASilentStoreCountsAsLost) {
  auto& service = Open();
  FakeStore store("a", Range(0, 10));
  const auto silent = std::make_shared<SilentChannel>();
  ASSERT_TRUE(service.OnHello(store.MakeHello(), silent));
  EXPECT_TRUE(Eventually([&] { return !service.GetStatus()->stores.at(0).connected; }));
  EXPECT_TRUE(silent->closed);
}

TEST_F(TunerTest, StatusHasTheSpaceThatAStoreToldOfLast) {
  auto& service = Open();
  FakeStore store("a", Range(0, 10));
  store.feature_bytes = 70;
  ASSERT_TRUE(store.Connect(service));
  const auto told = [&](int64_t bytes) {
    return Eventually([&] {
      const auto status = service.GetStatus()->stores.at(0);
      return status.feature_bytes == bytes && status.sidecar_bytes == 2 * bytes;
    });
  };
  EXPECT_TRUE(told(70));
  store.feature_bytes = 50;  // some were dropped
  EXPECT_TRUE(told(50));
  store.Disconnect();
  EXPECT_TRUE(told(50));
}

TEST_F(TunerTest, StrangersAreRefused) {
  auto& service = Open();
  FakeStore store("a", Range(0, 10));
  const auto hello_with = [&](auto&& change) {
    auto hello = store.MakeHello();
    change(hello);
    const auto welcome = service.OnHello(hello, std::make_shared<SilentChannel>());
    return welcome ? Error{} : welcome.error();
  };
  const auto other_cluster = hello_with([](rpc::Hello& hello) { hello.cluster_id = "feed"; });
  EXPECT_EQ(other_cluster.code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(other_cluster.message, HasSubstr("cluster-id"));
  EXPECT_EQ(hello_with([](rpc::Hello& hello) { hello.protocol_version = 99; }).code,
            ErrorCode::kFailedPrecondition);
  EXPECT_EQ(hello_with([](rpc::Hello& hello) { hello.store_id = "../a"; }).code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(hello_with([](rpc::Hello& hello) { hello.store_id = ""; }).code,
            ErrorCode::kInvalidArgument);

  // A catalog that was put back to an older state.
  ASSERT_TRUE(store.Connect(service));
  ASSERT_TRUE(Eventually([&] { return service.GetStatus()->photos == 10; }));
  store.Disconnect();
  EXPECT_EQ(hello_with([](rpc::Hello& hello) { hello.last_change = 3; }).code,
            ErrorCode::kFailedPrecondition);
}

TEST_F(TunerTest, AStoreThatCannotBeRememberedHasJoined) {
  auto& service = Open();
  FailEvery("INSERT ON store");
  FakeStore store("a", Range(0, 10));
  const auto joined = store.Connect(service);
  EXPECT_TRUE(joined) << joined.error().message;
  EXPECT_TRUE(Eventually([&] { return service.GetStatus()->photos == 10; }));
  store.Disconnect();
}

TEST_F(TunerTest, OneTunerAStateFolder) {
  Open();
  const auto second = TunerService::Open(Options());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(second.error().message, HasSubstr("--state"));
}

TEST_F(TunerTest, APortInUseIsSaid) {
  auto options = Options();
  options.listen = {"127.0.0.1", 0};
  auto tuner = Tuner::Start(options);
  ASSERT_TRUE(tuner) << tuner.error().message;
  EXPECT_TRUE((*tuner)->operators().GetStatus());
  auto second = Options("other");
  second.listen = {"127.0.0.1", (*tuner)->port()};
  EXPECT_EQ(Tuner::Start(second).error().code, ErrorCode::kAlreadyExists);
  second.listen = {"0.0.0.0", 0};
  EXPECT_EQ(Tuner::Start(second).error().code, ErrorCode::kFailedPrecondition);
}

TEST_F(TunerTest, AJobDatabaseOfANewerProgramIsRefused) {
  Open();
  Close();
  {
    auto db = sqlite::Database::Open(folder_ / "newer.db", {});
    ASSERT_TRUE(db);
    ASSERT_TRUE(db->Execute("PRAGMA user_version = 99"));
  }
  std::filesystem::copy_file(folder_ / "newer.db", folder_ / "state" / "jobs.db",
                             std::filesystem::copy_options::overwrite_existing);
  const auto opened = TunerService::Open(Options());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kFailedPrecondition);
}

}  // namespace
}  // namespace ndpipe::tuner
