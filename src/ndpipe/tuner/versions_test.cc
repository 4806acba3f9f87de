// Versions as operators see them: distributed, compared, served and rolled back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/request.h"
#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

constexpr int kPhotos = 400;

class VersionsTest : public TunerTest {
 protected:
  rpc::VersionStatus Version(int64_t number) {
    const auto versions = service_->ListVersions();
    for (const auto& version : *versions) {
      if (version.number == number) return version;
    }
    ADD_FAILURE() << "no version " << number;
    return {};
  }
  // A fine-tuned version that no store has been told of.
  int64_t Tuned() {
    auto request = Request(1, 1);
    request.relabel = false;
    return WaitFor(*service_->StartFinetune(request), "done").version;
  }
  int64_t Serving() { return service_->GetStatus()->serving_version; }
};

TEST_F(VersionsTest, AreServedAndRolledBackAtOnce) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  ConnectAll();
  EXPECT_EQ(service.Rollback().error().code, ErrorCode::kFailedPrecondition);
  WaitFor(*service.StartRelabel({1}), "done");
  EXPECT_THAT(service.Rollback().error().message, HasSubstr("nothing to go back to"));
  WaitForReport(*service.StartFinetune(Request(1, 1)));
  ASSERT_EQ(Serving(), 2);
  EXPECT_TRUE(Version(1).is_complete);

  const auto back = service.Rollback();
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->version, 1);
  EXPECT_TRUE(back->serves);
  EXPECT_EQ(back->job, 0) << "there is nothing to label";
  EXPECT_EQ(back->labelled, kPhotos);
  EXPECT_EQ(back->pending, 0);
  EXPECT_EQ(Serving(), 1);
  EXPECT_EQ(Version(1).state, "serving");
  EXPECT_EQ(Version(2).state, "retired");
  ASSERT_TRUE(service.ServeVersion(2));
  EXPECT_EQ(Serving(), 2);

  // Photos that the older version has not seen keep the newer one's labels, until a relabel.
  for (const int i : Range(kPhotos, kPhotos + 10)) a.Import(MakeFakePhoto(i));
  ASSERT_TRUE(Eventually([&] { return service.GetStatus()->photos == kPhotos + 10; }));
  WaitFor(*service.StartRelabel({2}), "done");
  a.paused = true;
  const auto again = service.Rollback();
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->serves);
  EXPECT_EQ(again->pending, 10);
  EXPECT_EQ(Serving(), 1);
  EXPECT_EQ(service.GetStatus()->pending, 10);
  ASSERT_NE(again->job, 0);
  a.paused = false;
  WaitFor(again->job, "done");
  EXPECT_EQ(service.GetStatus()->pending, 0);
  EXPECT_EQ(Serving(), 1);
}

TEST_F(VersionsTest, TwoLieSideBySideAndAreCompared) {
  auto& service = Open();
  AddStore("a", Range(0, kPhotos));
  ConnectAll();
  WaitFor(*service.StartRelabel({1}), "done");
  const int64_t tuned = Tuned();
  EXPECT_THAT(service.CompareVersions(1, tuned, 5).error().message, HasSubstr("--no-switch"));
  EXPECT_THAT(service.Search({.label = "class 1", .source = "any", .limit = 1, .version = tuned})
                  .error()
                  .message,
              HasSubstr("no complete set"));
  rpc::RelabelRequest request;
  request.version = tuned;
  request.no_switch = true;
  WaitFor(*service.StartRelabel(request), "done");
  EXPECT_EQ(Serving(), 1) << "readers did not notice";
  EXPECT_EQ(Version(tuned).state, "distributed");
  EXPECT_TRUE(Version(tuned).is_complete);

  const auto compared = service.CompareVersions(1, tuned, 5);
  ASSERT_TRUE(compared) << compared.error().message;
  EXPECT_EQ(compared->same, 0) << "other classes";
  EXPECT_EQ(compared->changed, kPhotos);
  EXPECT_EQ(compared->only_first + compared->only_second, 0);
  EXPECT_EQ(compared->all.photos, kPhotos);
  EXPECT_EQ(compared->all.first_right, 0);
  EXPECT_GT(compared->all.second_right, kPhotos * 8 / 10);
  EXPECT_GT(compared->unseen.photos, 0);
  EXPECT_LT(compared->unseen.photos, kPhotos);
  ASSERT_EQ(compared->examples.size(), 5U);
  EXPECT_THAT(compared->examples[0].second, HasSubstr("class "));
  EXPECT_FALSE(compared->examples[0].user_label.empty());
  int64_t first = 0, second = 0;
  for (const auto& row : compared->classes) {
    first += row.first;
    second += row.second;
  }
  EXPECT_EQ(first, kPhotos);
  EXPECT_EQ(second, kPhotos);

  // Each can be searched, whichever readers see.
  const auto hits =
      service.Search({.label = "class 1", .source = "any", .limit = kPhotos, .version = tuned});
  ASSERT_TRUE(hits) << hits.error().message;
  EXPECT_GT(hits->size(), kPhotos / 8U);
  EXPECT_EQ(hits->front().version, tuned);
  EXPECT_EQ(service.Search({.label = "class 1", .source = "user", .limit = 1, .version = tuned})
                .error()
                .code,
            ErrorCode::kInvalidArgument);

  const auto served = service.ServeVersion(tuned);
  ASSERT_TRUE(served);
  EXPECT_TRUE(served->serves);
  EXPECT_EQ(served->job, 0);
  EXPECT_EQ(Serving(), tuned);
}

TEST_F(VersionsTest, WithoutACompleteSetARelabelMakesOne) {
  auto& service = Open();
  AddStore("a", Range(0, kPhotos));
  ConnectAll();
  WaitFor(*service.StartRelabel({1}), "done");
  const int64_t tuned = Tuned();
  const auto served = service.ServeVersion(tuned);
  ASSERT_TRUE(served) << served.error().message;
  EXPECT_FALSE(served->serves);
  ASSERT_NE(served->job, 0);
  WaitFor(served->job, "done");
  EXPECT_EQ(Serving(), tuned);
  EXPECT_EQ(service.ServeVersion(99).error().code, ErrorCode::kNotFound);
}

TEST_F(VersionsTest, LabelsThatNobodyWantsAreDropped) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  ConnectAll();
  WaitFor(*service.StartRelabel({1}), "done");
  EXPECT_THAT(service.DropVersion(1).error().message, HasSubstr("serving"));
  const int64_t tuned = Tuned();
  EXPECT_THAT(service.DropVersion(tuned).error().message, HasSubstr("staged"));
  EXPECT_EQ(service.DropVersion(99).error().code, ErrorCode::kNotFound);
  rpc::RelabelRequest request;
  request.version = tuned;
  request.no_switch = true;
  a.paused = true;
  const auto job = *service.StartRelabel(request);
  EXPECT_THAT(service.DropVersion(tuned).error().message, HasSubstr("jobs cancel"));
  a.paused = false;
  WaitFor(job, "done");
  const auto dropped = service.DropVersion(tuned);
  ASSERT_TRUE(dropped) << dropped.error().message;
  EXPECT_EQ(*dropped, kPhotos);
  EXPECT_EQ(*service.DropVersion(tuned), 0);
  EXPECT_EQ(Version(tuned).state, "retired");
  EXPECT_FALSE(Version(tuned).is_complete);
  EXPECT_EQ(service.GetStatus()->labelled, kPhotos);
  EXPECT_EQ(Serving(), 1);
  // It is a version as before: a relabel makes it serve.
  WaitFor(service.ServeVersion(tuned)->job, "done");
  EXPECT_EQ(Serving(), tuned);
}

TEST_F(VersionsTest, ARelabelIsToldForGoodWhetherToSwitch) {
  RelabelOrder order;
  order.request.version = 3;
  order.request.no_switch = true;
  EXPECT_TRUE(ParseRelabelOrder(FormatRelabelOrder(order))->request.no_switch);
  // A record of before there was the choice.
  const auto old =
      ParseRelabelOrder(R"({"version":3,"precision":"fp32","on_loss":"wait","stores":["a"]})");
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_FALSE(old->request.no_switch);
}

TEST_F(VersionsTest, DistributionIsCountedInVersionAndReport) {
  auto& service = Open();
  AddStore("a", Range(0, kPhotos / 2));
  AddStore("b", Range(kPhotos / 2, kPhotos));
  ConnectAll();
  WaitFor(*service.StartRelabel({1}), "done");
  EXPECT_EQ(Version(1).full_sends, 2);
  EXPECT_EQ(Version(1).delta_sends, 0);
  const auto report = WaitForReport(*service.StartFinetune(Request(1, 2)));
  const auto tuned = Version(2);
  EXPECT_EQ(tuned.full_sends + tuned.delta_sends, 2);
  EXPECT_EQ(report["delta_bytes"], tuned.sent_bytes);
  EXPECT_EQ(report["full_sends"], tuned.full_sends);
  EXPECT_EQ(report["delta_sends"], tuned.delta_sends);
  EXPECT_GT(tuned.sent_bytes, 0);
  // The stores have it: another relabel sends nothing.
  WaitFor(*service.StartRelabel({2}), "done");
  EXPECT_EQ(Version(2).sent_bytes, tuned.sent_bytes);
}

}  // namespace
}  // namespace ndpipe::tuner
